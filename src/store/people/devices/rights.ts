import { AsyncLocalStorage } from "node:async_hooks";
import { sql } from "kysely";
import { Refusal, refuse } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";
import { onlyRow } from "../../pg/values/only-row.ts";

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
      o.id as "ownerId",
      -- Looked up for each device: joined, the names of everybody in the org are read.
      (select name from "user" where id = o.id) as "ownerName",
      c.role in ('owner', 'admin') or c.is_everywhere as "isEverywhere",
      coalesce(c.role <> '' and o.id = ${who.userId}::uuid, false) as "isOwner",
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
      -- By itself (offset): no index is asked before a policy for what "coalesce" says.
      cross join lateral (select coalesce(d.owner_id, p.owner_id) as id offset 0) o`.execute(db);
  return rows;
}

/** Whether the caller may currently use every device of the org. */
export async function isEverywhere(db: Db, { orgId, ...who }: Who & { orgId: string }): Promise<boolean> {
  return onlyRow(await standings(db, { orgId, who, deviceIds: [noDevice] })).isEverywhere;
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
  const standing = onlyRow(await standings(tx, { orgId, who, deviceIds: [deviceId] }));
  if (!rightTo(deed, standing)) refuseDeed(deed, standing);
}

/**
 * Locks a device until the commit, so that a deletion waits; undefined if the org has no such
 * device.
 */
export function lockDevice(
  tx: Db,
  { orgId, deviceId }: { orgId: string; deviceId: string },
): Promise<{ label: string; isWorker: boolean } | undefined> {
  return tx
    .selectFrom("device")
    .select(["label", "is_worker as isWorker"])
    .where("org_id", "=", orgId)
    .where("id", "=", deviceId)
    .forKeyShare()
    .executeTakeFirst();
}

/** Like {@link lockDevice}. Refuses with `not_found`, of the field `field`. */
export async function holdDevice(
  tx: Db,
  { field, ...device }: { orgId: string; deviceId: string; field: string },
): Promise<{ label: string; isWorker: boolean }> {
  return (
    (await lockDevice(tx, device)) ?? refuse("not_found", `there is no device ${device.deviceId}`, { field })
  );
}
