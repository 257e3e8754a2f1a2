/** Hooks: addresses where external deliveries start a watcher, and the received deliveries. */
import { type RawBuilder, sql } from "kysely";
import { refuse } from "../../../errors.ts";
import type { Keyring, SecretPlace } from "../../../secrets.ts";
import { isUuid } from "../../../values/ids.ts";
import type { JsonValue } from "../../../values/json.ts";
import { beginRotation, type Rotated } from "../../people/orgs/secret-rotation.ts";
import { type Db, transaction } from "../../pg/database.ts";
import { storableJson, storableText } from "../../pg/values/storable.ts";

export type HookKind = "standard" | "github" | "gitlab" | "slack" | "bearer" | "secret_url";
export type HookOutcome = "started" | "already_queued" | "queued" | "skipped" | "filtered" | "failed";

export type HookRow = {
  orgId: string;
  id: string;
  slug: string;
  watcherId: string;
  watcherSlug: string;
  kind: HookKind;
  filter: string;
  mapping: string;
  ratePerMinute: number;
  isDisabled: boolean;
  /** Sealed, or a reference. */
  secret: string;
  oldSecret: string | null;
  oldSecretUntil: Date | null;
  version: number;
  createdAt: Date;
  updatedAt: Date;
  lastDeliveryAt: Date | null;
  lastRefusedAt: Date | null;
  lastRefusedReason: string;
};

/** The place of a hook's secrets in the keyring. */
export const placeOf = ({ orgId, id }: Pick<HookRow, "orgId" | "id">): SecretPlace => ({
  ...{ orgId, agentId: "", platformId: `hook ${id}`, field: "secret" },
});

const select = sql`
  select h.org_id as "orgId", h.id, h.slug, h.watcher_id as "watcherId", w.slug as "watcherSlug", h.kind, h.filter, h.mapping,
    h.rate_per_minute as "ratePerMinute", h.is_disabled as "isDisabled", h.secret,
    case when h.old_secret_until > now() then h.old_secret end as "oldSecret",
    case when h.old_secret_until > now() then h.old_secret_until end as "oldSecretUntil", h.version,
    h.created_at as "createdAt", h.updated_at as "updatedAt", h.last_delivery_at as "lastDeliveryAt",
    h.last_refused_at as "lastRefusedAt", h.last_refused_reason as "lastRefusedReason"
  from hook h join watcher w on w.org_id = h.org_id and w.id = h.watcher_id`;

async function one(db: Db, where: RawBuilder<unknown>): Promise<HookRow | undefined> {
  const { rows } = await sql<HookRow>`${select} where ${where}`.execute(db);
  return rows[0];
}

/** The hooks at addresses, of any org, in the order of their ids. Only for a db across orgs. */
export async function findAddressed(db: Db, ids: readonly string[]): Promise<(HookRow | undefined)[]> {
  const { rows } =
    await sql<HookRow>`${select} where h.id = any(${[...ids]}::uuid[]) and not h.is_disabled`.execute(db);
  const found = new Map(rows.map((row) => [row.id, row]));
  return ids.map((id) => found.get(id));
}

/** By id or slug. Refuses with `not_found`. */
export async function get(db: Db, { orgId, hook }: { orgId: string; hook: string }): Promise<HookRow> {
  const name = isUuid(hook) ? sql`h.id` : sql`h.slug`;
  return (
    (await one(db, sql`h.org_id = ${orgId} and ${name} = ${hook}`)) ??
    refuse("not_found", `there is no hook "${hook}"`)
  );
}

export async function list(
  db: Db,
  options: { orgId: string; limit: number; afterSlug?: string | undefined; watcherId?: string | undefined },
): Promise<HookRow[]> {
  const { orgId, limit, afterSlug = "", watcherId } = options;
  const { rows } = await sql<HookRow>`${select}
    where h.org_id = ${orgId} and h.slug > ${afterSlug} ${watcherId ? sql`and h.watcher_id = ${watcherId}` : sql``}
    order by h.slug limit ${limit}`.execute(db);
  return rows;
}

/** Writes a new hook; false if its slug is used. */
export async function insert(
  tx: Db,
  hook: Pick<
    HookRow,
    | "orgId"
    | "id"
    | "slug"
    | "watcherId"
    | "kind"
    | "filter"
    | "mapping"
    | "ratePerMinute"
    | "isDisabled"
    | "secret"
  > & { createdBy: string },
): Promise<boolean> {
  const result = await sql`
    insert into hook (org_id, id, slug, watcher_id, kind, filter, mapping, rate_per_minute, is_disabled, secret, created_by)
    values (${hook.orgId}, ${hook.id}, ${hook.slug}, ${hook.watcherId}, ${hook.kind}, ${hook.filter}, ${hook.mapping},
      ${hook.ratePerMinute}, ${hook.isDisabled}, ${hook.secret}, ${hook.createdBy})
    on conflict do nothing`.execute(tx);
  return Number(result.numAffectedRows ?? 0) > 0;
}

/** Locks a hook's row; returns the number of deliveries allowed now. */
export async function lock(tx: Db, hook: { orgId: string; id: string }): Promise<number | undefined> {
  const { rows } = await sql<{ left: number }>`
    select least(rate_per_minute, rate_left + rate_per_minute
      * least(1, abs(extract(epoch from clock_timestamp() - greatest(rate_at, created_at - interval '1 hour'))::float8) / 60)) as "left"
    from hook where org_id = ${hook.orgId} and id = ${hook.id} for no key update`.execute(tx);
  return rows[0]?.left;
}

/**
 * Locks a watcher's hooks, before its removal deletes them: deliveries lock their hook before the
 * watcher.
 */
export async function lockOfWatcher(
  tx: Db,
  { orgId, watcherId }: { orgId: string; watcherId: string },
): Promise<void> {
  await sql`select from hook where org_id = ${orgId} and watcher_id = ${watcherId} order by id for update`.execute(
    tx,
  );
}

/** Locks the hooks that somebody made, before a change that locks their watchers. */
export async function lockMadeBy(
  tx: Db,
  { orgId, createdBy }: { orgId: string; createdBy: string },
): Promise<void> {
  await sql`select from hook where org_id = ${orgId} and created_by = ${createdBy} order by id for no key update`.execute(
    tx,
  );
}

export async function spend(tx: Db, hook: { orgId: string; id: string; left: number }): Promise<void> {
  await sql`update hook set rate_left = ${hook.left - 1}, rate_at = clock_timestamp(), last_delivery_at = clock_timestamp()
    where org_id = ${hook.orgId} and id = ${hook.id}`.execute(tx);
}

export async function update(
  tx: Db,
  hook: Pick<HookRow, "orgId" | "id" | "watcherId" | "filter" | "mapping" | "ratePerMinute" | "isDisabled">,
): Promise<void> {
  await sql`
    update hook set watcher_id = ${hook.watcherId}, filter = ${hook.filter}, mapping = ${hook.mapping},
      rate_per_minute = ${hook.ratePerMinute}, is_disabled = ${hook.isDisabled}, version = version + 1, updated_at = now()
    where org_id = ${hook.orgId} and id = ${hook.id}`.execute(tx);
}

export async function rotate(
  tx: Db,
  hook: { orgId: string; id: string; secret: string; overlapMs: number },
): Promise<void> {
  await sql`
    update hook set old_secret = secret, old_secret_until = now() + ${hook.overlapMs} * interval '1 ms', secret = ${hook.secret},
      secret_version = secret_version + 1, secret_set_at = now(), version = version + 1, updated_at = now()
    where org_id = ${hook.orgId} and id = ${hook.id}`.execute(tx);
}

export async function remove(tx: Db, hook: { orgId: string; id: string }): Promise<void> {
  await sql`delete from hook where org_id = ${hook.orgId} and id = ${hook.id}`.execute(tx);
}

/** Records a refused delivery, at most about once a second. */
export async function noteRefused(
  db: Db,
  hook: { orgId: string; id: string; reason: string },
): Promise<void> {
  await sql`update hook set last_refused_at = now(), last_refused_reason = ${hook.reason}
    where org_id = ${hook.orgId} and id = ${hook.id}
      and (last_refused_at is null or last_refused_at < now() - interval '1 second')`.execute(db);
}

export type DeliveryRow = {
  id: string;
  hookId: string;
  key: string | null;
  receivedAt: Date;
  event: string;
  outcome: HookOutcome;
  runId: string | null;
  reason: string;
  duplicates: number;
  replayOf: string | null;
  bodyBytes: number;
  hasBody: boolean;
  body: JsonValue;
  headers: Record<string, string>;
};

const deliveryColumns = sql`id, hook_id as "hookId", delivery_key as key, received_at as "receivedAt", event, outcome,
  run_id as "runId", reason, duplicates, replay_of as "replayOf", body_bytes as "bodyBytes", body is not null as "hasBody"`;

/** Counts a repeated delivery; undefined for a new key. The hook's row is locked by the caller. */
export async function findRepeated(
  tx: Db,
  delivery: { orgId: string; hookId: string; key: string },
): Promise<DeliveryRow | undefined> {
  const { rows } = await sql<DeliveryRow>`
    update hook_delivery set duplicates = duplicates + 1
    where org_id = ${delivery.orgId} and hook_id = ${delivery.hookId} and delivery_key = ${delivery.key}
    returning ${deliveryColumns}`.execute(tx);
  return rows[0];
}

/** Maximum deliveries of a hook with stored bodies. */
const deliveriesMax = 100;

/** Writes a delivery, and deletes the body of the delivery beyond {@link deliveriesMax}. */
export async function insertDelivery(
  tx: Db,
  delivery: Omit<DeliveryRow, "receivedAt" | "duplicates" | "hasBody"> & { orgId: string },
): Promise<void> {
  const { orgId, hookId } = delivery;
  await sql`
    with forgotten as (
      update hook_delivery set body = null, headers = '{}'
      where org_id = ${orgId} and id in (select id from hook_delivery
        where org_id = ${orgId} and hook_id = ${hookId} order by id desc offset ${deliveriesMax - 1} limit 10) and body is not null
    )
    insert into hook_delivery (org_id, id, hook_id, delivery_key, event, outcome, run_id, reason, replay_of, body_bytes, body, headers)
    values (${orgId}, ${delivery.id}, ${hookId}, ${delivery.key}, ${storableText(delivery.event)}, ${delivery.outcome}, ${delivery.runId},
      ${storableText(delivery.reason)}, ${delivery.replayOf}, ${delivery.bodyBytes}, ${storableJson(delivery.body)}::jsonb,
      ${storableJson(delivery.headers)}::jsonb)`.execute(tx);
}

/** The last deliveries of a hook, newest first, without bodies. */
export async function listDeliveries(db: Db, hook: { orgId: string; id: string }): Promise<DeliveryRow[]> {
  const { rows } = await sql<DeliveryRow>`
    select ${deliveryColumns} from hook_delivery
    where org_id = ${hook.orgId} and hook_id = ${hook.id} order by id desc limit ${deliveriesMax}`.execute(
    db,
  );
  return rows;
}

/** Refuses with `not_found`. */
export async function getDelivery(
  db: Db,
  delivery: { orgId: string; hookId: string; id: string },
): Promise<DeliveryRow> {
  const { rows } = await sql<DeliveryRow>`
    select ${deliveryColumns}, body, headers from hook_delivery
    where org_id = ${delivery.orgId} and hook_id = ${delivery.hookId} and id = ${delivery.id}`.execute(db);
  return rows[0] ?? refuse("not_found", `the hook has no delivery ${delivery.id}`);
}

type Sealed = { orgId: string; id: string; slug: string; secret: string; oldSecret: string | null };

/** Like platforms.rotateSecrets, for the secrets of hooks; `stableId` is the hook's slug. */
export function rotateSecrets(db: Db, keyring: Keyring): Promise<Rotated> {
  return transaction(db, async (tx) => {
    const { rows } = await sql<Sealed>`
      select org_id as "orgId", id, slug, secret, old_secret as "oldSecret" from hook
      order by org_id, id for no key update`.execute(tx);
    const rotation = beginRotation(keyring);
    for (const row of rows) {
      const reseal = (stored: string) => rotation.reseal(stored, placeOf(row), row.slug);
      const [secret, oldSecret] = [reseal(row.secret), row.oldSecret && reseal(row.oldSecret)];
      if (secret === row.secret && oldSecret === row.oldSecret) continue;
      await sql`update hook set secret = ${secret}, old_secret = ${oldSecret}
        where org_id = ${row.orgId} and id = ${row.id}`.execute(tx);
    }
    return rotation.finish(tx);
  });
}
