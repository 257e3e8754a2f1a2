/**
 * The owners of devices, and the rights of others on them (docs/security.md).
 *
 * {@link rightTo} decides, from a device's {@link Standing}. The guard calls it for every rpc that
 * names a device's resource (src/server/access/ownership.ts). {@link requireStill} calls it again
 * before a pin is written, under the device's lock, so that no watcher depends on a grant that was
 * just revoked.
 */
import { AsyncLocalStorage } from "node:async_hooks";
import { sql } from "kysely";
import { Refusal, refuse } from "../../errors.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import * as events from "../work/events.ts";

export type Permission = "use" | "manage" | "read";

/** A deed on a device. `own` is never granted: deleting the device, and granting. */
export type Deed = Permission | "own";

/** The caller: a person in the org by user id, or a service by its token. */
export type Who = { userId: string | null; tokenId: string };

/** The id of no token; a person is looked up by user id alone. */
const noToken = "00000000-0000-0000-0000-000000000000";

/**
 * The person or service of an actor ("user:<id>", "service:<token id>"); undefined for a device and
 * for Pinion itself.
 */
export function whoOf(actor: string): Who | undefined {
  const [kind, id] = actor.split(":") as [string, string];
  if (kind === "user") return { userId: id, tokenId: noToken };
  return kind === "service" ? { userId: null, tokenId: id } : undefined;
}

/** A caller's relation to a device. */
export type Standing = {
  deviceId: string;
  /**
   * `worker`: a fleet worker, for unpinned work, owned by the org. `past`: a person's deleted
   * device. `unknown`: a removed fleet worker, or no device at all.
   */
  kind: "device" | "worker" | "past" | "unknown";
  label: string;
  ownerId: string | null;
  ownerName: string | null;
  /**
   * They are an owner or admin of the org, or a service with the scope "admin" or for all devices.
   */
  isEverywhere: boolean;
  isOwner: boolean;
  /** The grants for the caller. */
  grants: { id: string; permission: Permission; isUsed: boolean }[];
};

/** The basis of a right; a grant by its id. */
export type Right = "everyone's" | "role" | "owner" | { grantId: string; isUsed: boolean };

/** The decision: the right by which the deed is allowed, or null. Pure. */
export function rightTo(deed: Deed, standing: Standing): Right | null {
  if (standing.isEverywhere) return "role";
  if (standing.kind === "unknown") return "everyone's";
  if (standing.kind === "worker") return deed === "use" || deed === "read" ? "everyone's" : null;
  if (standing.isOwner) return "owner";
  const grant = standing.grants.find(({ permission }) => permission === deed);
  return grant ? { grantId: grant.id, isUsed: grant.isUsed } : null;
}

/** Refuses with `permission_denied`, and names the person to ask and the permission to ask for. */
export function refuseDeed(deed: Deed, standing: Standing): never {
  throw deedRefusal(deed, standing);
}

const deedWords: Record<Deed, string> = {
  use: "to use it (--use: pin, trigger and edit what is pinned)",
  manage: "to manage it (--manage: rename, label and disconnect)",
  read: "to read what its runs say (--read: output, results, transcripts)",
  own: "",
};

function deedRefusal(deed: Deed, standing: Standing): Refusal {
  const { label, kind } = standing;
  if (kind === "past") {
    return new Refusal(
      "permission_denied",
      `the device "${label}" was deleted, and what ran there is for its last owner and the owners and admins of the org`,
    );
  }
  const whose = kind === "worker" ? "a fleet worker" : `${standing.ownerName ?? "nobody"}'s`;
  if (kind === "worker" || deed === "own") {
    const who = kind === "worker" ? "owners and admins" : "its owner, and owners and admins";
    return new Refusal(
      "permission_denied",
      `the device "${label}" is ${whose}: this is for ${who} of the org`,
    );
  }
  return new Refusal(
    "permission_denied",
    `the device "${label}" is ${whose}: ask the owner, or an owner or admin of the org, for a grant ${deedWords[deed]}: ` +
      `pinion devices grant ${standing.deviceId} --to <you> --${deed}`,
  );
}

/** The caller's current standing on the devices; one for each id, in any order. */
export async function standings(
  db: Db,
  options: { orgId: string; who: Who; deviceIds: readonly string[] },
): Promise<Standing[]> {
  const { orgId, who, deviceIds } = options;
  if (deviceIds.length === 0) return [];
  const { rows } = await sql<Standing>`
    with caller as materialized (
      select
        coalesce((select role from member where org_id = ${orgId} and user_id = ${who.userId}::uuid), '') as role,
        coalesce((select all_devices or 'admin' = any(scopes) from token
          where org_id = ${orgId} and id = ${who.tokenId}::uuid and user_id is null), false) as is_everywhere
    )
    select i.id as "deviceId", coalesce(d.label, p.label, '') as label,
      case when d.is_worker then 'worker' when d.id is not null then 'device'
        when p.device_id is not null then 'past' else 'unknown' end as kind,
      coalesce(d.owner_id, p.owner_id) as "ownerId", u.name as "ownerName",
      c.role in ('owner', 'admin') or c.is_everywhere as "isEverywhere",
      coalesce(c.role <> '' and coalesce(d.owner_id, p.owner_id) = ${who.userId}::uuid, false) as "isOwner",
      (select coalesce(jsonb_agg(jsonb_build_object('id', g.id, 'permission', g.permission,
          'isUsed', g.first_used_at is not null) order by g.id), '[]')
        from device_grant g
        where g.org_id = ${orgId} and g.device_id = i.id
          and (g.user_id = ${who.userId}::uuid or g.token_id = ${who.tokenId}::uuid
            or (g.user_id is null and g.token_id is null and c.role <> ''))) as grants
    from caller c
      cross join unnest(${deviceIds as string[]}::uuid[]) as i(id)
      left join device d on d.org_id = ${orgId} and d.id = i.id
      left join device_past p on p.org_id = ${orgId} and p.device_id = i.id
      left join "user" u on u.id = coalesce(d.owner_id, p.owner_id)`.execute(db);
  return rows;
}

/** Whether the caller may currently use every device of the org. */
export async function isEverywhere(db: Db, { orgId, ...who }: Who & { orgId: string }): Promise<boolean> {
  const [standing] = await standings(db, { orgId, who, deviceIds: [noDevice] });
  return standing!.isEverywhere;
}

const noDevice = "00000000-0000-0000-0000-000000000000";

const caller = new AsyncLocalStorage<Who>();

/** Calls `fn` on behalf of a caller, whose right {@link requireStill} then checks. */
export function onBehalfOf<T>(who: Who, fn: () => T): T {
  return caller.run(who, fn);
}

/**
 * Refuses with `permission_denied` if the current caller may not do the deed to the device, which
 * the transaction has locked. Pinion's own work has no caller, and is allowed.
 */
export async function requireStill(
  tx: Db,
  { orgId, deviceId, deed }: { orgId: string; deviceId: string; deed: Deed },
): Promise<void> {
  const who = caller.getStore();
  if (!who) return;
  const [standing] = await standings(tx, { orgId, who, deviceIds: [deviceId] });
  if (!rightTo(deed, standing!)) refuseDeed(deed, standing!);
}

/**
 * Records the first use of the grants, each with the event `device.grant_used`. Returns whether any
 * was a first use.
 */
export function noteFirstUse(
  db: Db,
  options: { orgId: string; grantIds: readonly string[]; actor: string },
): Promise<boolean> {
  const { orgId, actor } = options;
  return transaction(db, async (tx) => {
    const used = await tx
      .updateTable("device_grant")
      .set({ first_used_at: sql<Date>`now()` })
      .where("org_id", "=", orgId)
      .where("id", "in", [...options.grantIds])
      .where("first_used_at", "is", null)
      .returning(["id", "device_id", "permission", "user_id", "token_id"])
      .execute();
    await events.append(
      tx,
      orgId,
      used.map((row) => ({
        kind: "device.grant_used",
        actor,
        deviceId: row.device_id,
        data: { grant_id: row.id, permission: row.permission, to: granteeName(granteeOf(row)) },
      })),
    );
    return used.length > 0;
  });
}

/** The grantee of a grant. */
export type Grantee = { userId: string } | { tokenId: string } | "everyone";

export type Grant = {
  id: string;
  deviceId: string;
  deviceLabel: string;
  grantee: Grantee;
  granteeName: string;
  permission: Permission;
  grantedBy: string;
  createdAt: Date;
  firstUsedAt: Date | null;
};

function granteeOf(row: { user_id: string | null; token_id: string | null }): Grantee {
  if (row.user_id) return { userId: row.user_id };
  return row.token_id ? { tokenId: row.token_id } : "everyone";
}

/** As an actor: "user:<id>", "service:<token id>", or "everyone". */
export function granteeName(grantee: Grantee): string {
  if (grantee === "everyone") return "everyone";
  return "userId" in grantee ? `user:${grantee.userId}` : `service:${grantee.tokenId}`;
}

/**
 * Grants permissions on a device, each with the event `device.granted`; existing grants stay
 * unchanged. Returns all requested grants. Refuses with `not_found` (device, member, service), and
 * with `failed_precondition` for a fleet worker.
 */
export function grant(db: Db, options: NewGrants): Promise<Grant[]> {
  return transaction(db, async (tx) => {
    const { granted, written } = await grantIn(tx, options);
    await events.append(tx, options.orgId, written);
    return granted;
  });
}

export type NewGrants = {
  orgId: string;
  deviceId: string;
  grantee: Grantee;
  permissions: readonly Permission[];
  actor: string;
};

/** {@link grant} in the caller's transaction, which appends the events. */
export async function grantIn(
  tx: Db,
  options: NewGrants,
): Promise<{ granted: Grant[]; written: Omit<events.NewEvent, "orgId">[] }> {
  const { orgId, deviceId, grantee, permissions, actor } = options;
  await requireGrantee(tx, { orgId, grantee });
  const device = await tx
    .selectFrom("device")
    .select(["label", "is_worker"])
    .where("org_id", "=", orgId)
    .where("id", "=", deviceId)
    .forKeyShare()
    .executeTakeFirst();
  if (!device) refuse("not_found", `there is no device ${deviceId}`, { field: "device_id" });
  if (device.is_worker) {
    refuse("failed_precondition", `"${device.label}" is a fleet worker, which everybody in the org may use`, {
      field: "device_id",
    });
  }
  const { user_id, token_id } = columnsOf(grantee);
  const { rows: added } = await sql<{ id: string; permission: Permission }>`
      insert into device_grant (org_id, device_id, permission, user_id, token_id, granted_by)
      select ${orgId}, ${deviceId}, p, ${user_id}, ${token_id}, ${actor}
      from unnest(${permissions as Permission[]}::text[]) p
      on conflict do nothing
      returning id, permission`.execute(tx);
  const to = granteeName(grantee);
  const all = await select(tx, orgId)
    .where("g.device_id", "=", deviceId)
    .where("g.permission", "in", [...permissions])
    .where(isOf(grantee))
    .orderBy("g.id")
    .execute();
  return {
    granted: all.map(grantOf),
    written: added.map(({ id, permission }) => ({
      kind: "device.granted",
      actor,
      deviceId,
      data: { grant_id: id, permission, to },
    })),
  };
}

async function requireGrantee(
  tx: Db,
  { orgId, grantee }: { orgId: string; grantee: Grantee },
): Promise<void> {
  if (grantee === "everyone") return;
  if ("userId" in grantee) {
    const member = await tx
      .selectFrom("member")
      .select("user_id")
      .where("org_id", "=", orgId)
      .where("user_id", "=", grantee.userId)
      .forKeyShare()
      .executeTakeFirst();
    if (!member) refuse("not_found", `there is no member ${grantee.userId}`, { field: "grantee.user_id" });
    return;
  }
  const token = await tx
    .selectFrom("token")
    .select("kind")
    .where("org_id", "=", orgId)
    .where("id", "=", grantee.tokenId)
    .where("revoked_at", "is", null)
    .forKeyShare()
    .executeTakeFirst();
  if (token?.kind !== "svc") {
    refuse("not_found", `there is no token ${grantee.tokenId} of a service`, { field: "grantee.token_id" });
  }
}

/**
 * Revokes grants in the caller's transaction, which has locked the device; returns them. Empty
 * permissions: all grants of the grantee. The caller appends the events.
 */
export async function takeBack(
  tx: Db,
  options: { orgId: string; deviceId: string; grantee: Grantee; permissions: readonly Permission[] },
): Promise<Grant[]> {
  let query = select(tx, options.orgId)
    .where("g.device_id", "=", options.deviceId)
    .where(isOf(options.grantee))
    .orderBy("g.id");
  if (options.permissions.length > 0) query = query.where("g.permission", "in", [...options.permissions]);
  const found = (await query.execute()).map(grantOf);
  if (found.length === 0) return [];
  await tx
    .deleteFrom("device_grant")
    .where("org_id", "=", options.orgId)
    .where(
      "id",
      "in",
      found.map(({ id }) => id),
    )
    .execute();
  return found;
}

/** `device.grant_revoked`, for each. */
export function revokedEvents(taken: readonly Grant[], actor: string): Omit<events.NewEvent, "orgId">[] {
  return taken.map(({ id, deviceId, permission, grantee }) => ({
    kind: "device.grant_revoked",
    actor,
    deviceId,
    data: { grant_id: id, permission, to: granteeName(grantee) },
  }));
}

/** Grants by device and age, at most `limit`; after `after`, and of `deviceId`, each if given. */
export async function list(
  db: Db,
  options: {
    orgId: string;
    deviceId?: string | undefined;
    after?: { deviceId: string; id: string } | undefined;
    limit: number;
  },
): Promise<Grant[]> {
  let query = select(db, options.orgId).orderBy("g.device_id").orderBy("g.id").limit(options.limit);
  if (options.deviceId) query = query.where("g.device_id", "=", options.deviceId);
  if (options.after) {
    query = query.where(
      sql<boolean>`(g.device_id, g.id) > (${options.after.deviceId}::uuid, ${options.after.id}::uuid)`,
    );
  }
  return (await query.execute()).map(grantOf);
}

/** Devices with grants for a service's token. */
export async function devicesOfToken(
  db: Db,
  { orgId, tokenId }: { orgId: string; tokenId: string },
): Promise<string[]> {
  const rows = await db
    .selectFrom("device_grant")
    .select("device_id")
    .distinct()
    .where("org_id", "=", orgId)
    .where("token_id", "=", tokenId)
    .execute();
  return rows.map((row) => row.device_id);
}

/** Moves to a token's successor the token's grants, and the watchers that depend on them. */
export async function inherit(
  tx: Db,
  { orgId, tokenId, successorId }: { orgId: string; tokenId: string; successorId: string },
): Promise<void> {
  await sql`
    insert into device_grant (org_id, device_id, permission, token_id, granted_by, first_used_at)
    select org_id, device_id, permission, ${successorId}, granted_by, first_used_at
    from device_grant where org_id = ${orgId} and token_id = ${tokenId}
    on conflict do nothing`.execute(tx);
  await sql`
    update watcher set sponsor = ${`service:${successorId}`}
    where org_id = ${orgId} and sponsor = ${`service:${tokenId}`}`.execute(tx);
}

function columnsOf(grantee: Grantee): { user_id: string | null; token_id: string | null } {
  if (grantee === "everyone") return { user_id: null, token_id: null };
  return "userId" in grantee
    ? { user_id: grantee.userId, token_id: null }
    : { user_id: null, token_id: grantee.tokenId };
}

function isOf(grantee: Grantee) {
  const { user_id, token_id } = columnsOf(grantee);
  return sql<boolean>`g.user_id is not distinct from ${user_id}::uuid and g.token_id is not distinct from ${token_id}::uuid`;
}

function select(db: Db, orgId: string) {
  return db
    .selectFrom("device_grant as g")
    .innerJoin("device as d", (join) =>
      join.onRef("d.org_id", "=", "g.org_id").onRef("d.id", "=", "g.device_id"),
    )
    .leftJoin("user as u", "u.id", "g.user_id")
    .leftJoin("token as t", (join) =>
      join.onRef("t.org_id", "=", "g.org_id").onRef("t.id", "=", "g.token_id"),
    )
    .select(["g.id", "g.device_id", "g.permission", "g.user_id", "g.token_id", "g.granted_by"])
    .select(["g.created_at", "g.first_used_at", "d.label"])
    .select(sql<string>`coalesce(u.name, t.label, '')`.as("grantee_name"))
    .where("g.org_id", "=", orgId);
}

function grantOf(row: {
  id: string;
  device_id: string;
  permission: Permission;
  user_id: string | null;
  token_id: string | null;
  granted_by: string;
  created_at: Date;
  first_used_at: Date | null;
  label: string;
  grantee_name: string;
}): Grant {
  return {
    id: row.id,
    deviceId: row.device_id,
    deviceLabel: row.label,
    grantee: granteeOf(row),
    granteeName: row.grantee_name,
    permission: row.permission,
    grantedBy: row.granted_by,
    createdAt: row.created_at,
    firstUsedAt: row.first_used_at,
  };
}
