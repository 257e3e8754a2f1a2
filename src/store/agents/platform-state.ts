/**
 * What adapters of chat platforms keep between messages, for all replicas: values, lists, queues,
 * locks and subscriptions. Each function is one statement. An expired entry reads as absent.
 */

import { sql } from "kysely";
import { refuse } from "../../errors.ts";
import type { Db } from "../pg/database.ts";
import { onlyRow } from "../pg/values/only-row.ts";
import { storableJson, storableText } from "../pg/values/storable.ts";
import type { Named } from "./platforms.ts";

export type Space = "value" | "list" | "queue" | "lock" | "subscription";

type Entry = Named & { key: string };

/** Maximum bytes of an entry's JSON. */
export const valueBytesMax = 1_048_576;
/** Maximum items of a list without a smaller bound. */
export const listItemsMax = 1_000;
/** Days that a subscription lasts without a message. */
const subscriptionDays = 90;
/** Maximum entries of a platform; retention deletes the ones untouched for the longest time. */
export const entriesMax = 100_000;

const at = (ttlMs: number | undefined) =>
  ttlMs === undefined ? sql`null` : sql`clock_timestamp() + ${ttlMs} * interval '1 ms'`;
const isLive = sql<boolean>`(s.expires_at is null or s.expires_at > clock_timestamp())`;
const isOver = sql<boolean>`s.expires_at <= clock_timestamp()`;

function json(value: unknown): string {
  const text = storableJson(value ?? null);
  if (Buffer.byteLength(text) > valueBytesMax)
    refuse("invalid_argument", `a platform's adapter keeps at most ${valueBytesMax} bytes of a value`);
  return text;
}

const which = ({ orgId, stableId, key }: Entry, space: Space) =>
  sql`s.org_id = ${orgId} and s.stable_id = ${stableId} and s.space = ${space} and s.key = ${storableText(key)}`;

export async function get(db: Db, entry: Entry): Promise<unknown> {
  const { rows } = await sql<{ value: unknown }>`
    select value from platform_state s where ${which(entry, "value")} and ${isLive}`.execute(db);
  return rows[0]?.value ?? null;
}

export async function set(db: Db, entry: Entry & { value: unknown; ttlMs?: number | undefined }) {
  await sql`
    insert into platform_state as s (org_id, stable_id, space, key, value, expires_at)
    values (${entry.orgId}, ${entry.stableId}, 'value', ${storableText(entry.key)}, ${json(entry.value)}::jsonb,
      ${at(entry.ttlMs)})
    on conflict (org_id, stable_id, space, key)
      do update set value = excluded.value, expires_at = excluded.expires_at, touched_at = now()`.execute(db);
}

/** Whether the value was set: false if the key has a value already. */
export async function setIfNotExists(
  db: Db,
  entry: Entry & { value: unknown; ttlMs?: number | undefined },
): Promise<boolean> {
  const { rows } = await sql`
    insert into platform_state as s (org_id, stable_id, space, key, value, expires_at)
    values (${entry.orgId}, ${entry.stableId}, 'value', ${storableText(entry.key)}, ${json(entry.value)}::jsonb,
      ${at(entry.ttlMs)})
    on conflict (org_id, stable_id, space, key)
      do update set value = excluded.value, expires_at = excluded.expires_at, touched_at = now() where ${isOver}
    returning 1`.execute(db);
  return rows.length > 0;
}

export async function remove(db: Db, entry: Entry & { space: Space }): Promise<void> {
  await sql`delete from platform_state s where ${which(entry, entry.space)}`.execute(db);
}

/** Appends to a list; the newest `maxLength` items stay. */
export async function append(
  db: Db,
  entry: Entry & { value: unknown; maxLength?: number | undefined; ttlMs?: number | undefined },
): Promise<void> {
  const max = Math.min(entry.maxLength ?? listItemsMax, listItemsMax);
  const item = json([entry.value]);
  await sql`
    insert into platform_state as s (org_id, stable_id, space, key, value, expires_at)
    values (${entry.orgId}, ${entry.stableId}, 'list', ${storableText(entry.key)}, ${item}::jsonb, ${at(entry.ttlMs)})
    on conflict (org_id, stable_id, space, key) do update set
      value = case when ${isOver} then excluded.value else ${newest(sql`s.value || excluded.value`, max)} end,
      expires_at = excluded.expires_at, touched_at = now()`.execute(db);
}

/** The last `max` items of a list. */
function newest(list: ReturnType<typeof sql>, max: number) {
  return sql`(select coalesce(jsonb_agg(item order by place), '[]') from (
    select item, place from jsonb_array_elements(${list}) with ordinality as t(item, place)
    order by place desc limit ${max}) kept)`;
}

export async function list(db: Db, entry: Entry): Promise<unknown[]> {
  const { rows } = await sql<{ value: unknown[] }>`
    select value from platform_state s where ${which(entry, "list")} and ${isLive}`.execute(db);
  return rows[0]?.value ?? [];
}

/** Appends to a queue of at most `maxSize` items, the oldest going first; returns its length. */
export async function enqueue(db: Db, entry: Entry & { value: unknown; maxSize: number }): Promise<number> {
  const max = Math.min(entry.maxSize, listItemsMax);
  const { rows } = await sql<{ depth: number }>`
    insert into platform_state as s (org_id, stable_id, space, key, value)
    values (${entry.orgId}, ${entry.stableId}, 'queue', ${storableText(entry.key)}, ${json([entry.value])}::jsonb)
    on conflict (org_id, stable_id, space, key)
      do update set value = ${newest(sql`s.value || excluded.value`, max)}, touched_at = now()
    returning jsonb_array_length(value) as depth`.execute(db);
  return onlyRow(rows).depth;
}

/** Takes the first item of a queue that has not expired (`expiresAt`, in ms); null for none. */
export async function dequeue(db: Db, entry: Entry): Promise<unknown> {
  const { rows } = await sql<{ item: unknown }>`
    with s as (
      select s.* from platform_state s where ${which(entry, "queue")} for update
    ),
    live as (
      select item, place from s, jsonb_array_elements(s.value) with ordinality as t(item, place)
      where coalesce((item->>'expiresAt')::float8, 'infinity') > extract(epoch from clock_timestamp()) * 1000
    ),
    first as (select item, place from live order by place limit 1),
    changed as (
      update platform_state q set touched_at = now(), value =
        (select coalesce(jsonb_agg(l.item order by l.place), '[]') from live l
          where l.place > coalesce((select place from first), 0))
      from s where q.org_id = s.org_id and q.stable_id = s.stable_id and q.space = s.space and q.key = s.key
    )
    select item from first`.execute(db);
  return rows[0]?.item ?? null;
}

export async function depth(db: Db, entry: Entry): Promise<number> {
  const { rows } = await sql<{ depth: number }>`
    select jsonb_array_length(value) as depth from platform_state s where ${which(entry, "queue")}`.execute(
    db,
  );
  return rows[0]?.depth ?? 0;
}

export type Lock = { token: string; expiresAt: Date };

/** Takes a lock; undefined while another holder has it. */
export async function acquire(db: Db, entry: Entry & { ttlMs: number }): Promise<Lock | undefined> {
  const { rows } = await sql<Lock>`
    insert into platform_state as s (org_id, stable_id, space, key, token, expires_at)
    values (${entry.orgId}, ${entry.stableId}, 'lock', ${storableText(entry.key)}, gen_random_uuid(), ${at(entry.ttlMs)})
    on conflict (org_id, stable_id, space, key)
      do update set token = excluded.token, expires_at = excluded.expires_at, touched_at = now() where ${isOver}
    returning token, expires_at as "expiresAt"`.execute(db);
  return rows[0];
}

/** Whether the lock was still held with the token, and now lasts longer. */
export async function extend(db: Db, entry: Entry & { token: string; ttlMs: number }): Promise<boolean> {
  const { rows } = await sql`
    update platform_state s set expires_at = ${at(entry.ttlMs)}, touched_at = now()
    where ${which(entry, "lock")} and s.token::text = ${entry.token} and ${isLive}
    returning 1`.execute(db);
  return rows.length > 0;
}

/** Releases a lock held with the token; without a token, whoever holds it. */
export async function unlock(db: Db, entry: Entry & { token?: string }): Promise<void> {
  const isTokens = entry.token === undefined ? sql`true` : sql`s.token::text = ${entry.token}`;
  await sql`delete from platform_state s where ${which(entry, "lock")} and ${isTokens}`.execute(db);
}

export async function subscribe(db: Db, entry: Entry): Promise<void> {
  await sql`
    insert into platform_state as s (org_id, stable_id, space, key, expires_at)
    values (${entry.orgId}, ${entry.stableId}, 'subscription', ${storableText(entry.key)},
      now() + ${subscriptionDays} * interval '1 day')
    on conflict (org_id, stable_id, space, key)
      do update set expires_at = excluded.expires_at, touched_at = now()`.execute(db);
}

export async function isSubscribed(db: Db, entry: Entry): Promise<boolean> {
  const { rows } = await sql`
    select from platform_state s where ${which(entry, "subscription")} and ${isLive}`.execute(db);
  return rows.length > 0;
}
