import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import * as events from "../../work/service/events.ts";
import type { Permission } from "./rights.ts";
import * as rights from "./rights.ts";

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
  const device = await rights.holdDevice(tx, { orgId, deviceId, field: "device_id" });
  if (device.isWorker) {
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

/**
 * Locks the grants on a device, or to a person, before the device's or the member's removal deletes
 * them by their foreign keys: in one order, and before any watcher.
 */
export async function lock(
  tx: Db,
  of: { orgId: string } & ({ deviceId: string } | { userId: string }),
): Promise<void> {
  const [column, id] =
    "deviceId" in of ? (["device_id", of.deviceId] as const) : (["user_id", of.userId] as const);
  await tx
    .selectFrom("device_grant")
    .select("id")
    .where("org_id", "=", of.orgId)
    .where(column, "=", id)
    .orderBy("device_id")
    .orderBy("id")
    .forUpdate()
    .execute();
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
