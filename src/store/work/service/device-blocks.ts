import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";

/**
 * Blocks of time with the work of an org's devices. A block's length is a multiple of the one
 * before, and its beginning a multiple of its length since 1970: so any time of whole hours is made
 * up of few blocks, and a month of an org with ten thousand devices is not read as thirty days of
 * them.
 *
 *   3 h ─▶ 6 h ─▶ 12 h ─▶ a day ─▶ 2 days ─▶ 4 ─▶ 8 ─▶ 16      each made from those before
 *
 * The shortest of the open day are added to until they are over (open-day.ts). Blocks of several
 * days are made as the last of their days is closed.
 */

export const hourMs = 3_600_000;
export const dayMs = 24 * hourMs;
/** In hours. */
const withinDay = [3, 6, 12, 24] as const;
const ofDays = [48, 96, 192, 384] as const;
/** The lengths of blocks in hours, the shortest first. */
export const blockHours: readonly number[] = [...withinDay, ...ofDays];
const [shortestHours] = withinDay;
export const shortestMs = shortestHours * hourMs;

/** Orgs and a time whose ends are to be added, in ms. */
export type EndsAdded = { orgIds: readonly string[]; day: string; from: number; to: number };

export const floorTo = (at: number, lengthMs: number) => Math.floor(at / lengthMs) * lengthMs;
/** The beginning of a day (YYYY-MM-DD, UTC) in ms. */
export const startOf = (day: string) => Date.parse(`${day}T00:00:00Z`);
const lengthOf = (hours: number) => sql`${hours} * interval '1 hour'`;

/**
 * Inserts blocks of a length, one for each org and start of `work`: a select of org_id, start,
 * device_id, runs and busy_ms. `day`: absent for a block of several days.
 */
function insertBlocks(
  { hours, day }: { hours: number; day?: string | undefined },
  work: RawBuilder<unknown>,
): RawBuilder<unknown> {
  return sql`
    insert into run_count_devices (org_id, start, device_ids, runs, busy_ms, hours, day)
    select org_id, start, array_agg(device_id order by device_id), array_agg(runs::int order by device_id),
      array_agg(busy_ms::int8 order by device_id), ${hours}::int, ${day ?? null}::date
    from (${work}) work group by 1, 2`;
}

/** The work of blocks b, summed up by org, `start` and device. */
const workOf = (start: RawBuilder<unknown>, blocks: RawBuilder<unknown>) => sql`
  select b.org_id, ${start} as start, u.device_id, sum(u.runs) as runs, sum(u.busy_ms) as busy_ms
  from ${blocks} cross join lateral unnest(b.device_ids, b.runs, b.busy_ms) u (device_id, runs, busy_ms)`;

/** Adds the ends of a time of one day, and makes the blocks of the day that are over by then. */
export async function add(tx: Db, added: EndsAdded): Promise<void> {
  const { orgIds, day, from, to } = added;
  const ends = sql`
    select org_id, date_bin(${lengthOf(shortestHours)}, finished_at, 'epoch') as start, device_id, count(*) as runs,
      coalesce(sum(duration_ms), 0) as busy_ms
    from run_finished where finished_at >= ${new Date(from)} and finished_at < ${new Date(to)}
      and org_id = any(${orgIds as string[]}::text[]) and device_id is not null and status <> 'skipped'
    group by 1, 2, 3`;
  await insertBlocks({ hours: shortestHours, day }, ends).execute(tx);
  await joinShortest(tx, added);
  for (const [nth, hours] of withinDay.entries()) {
    if (nth > 0) await build(tx, { ...added, hours, parts: withinDay[nth - 1]! });
  }
}

/** Of the block that was begun before `from` and is over, one row remains. */
async function joinShortest(tx: Db, { orgIds, day, from, to }: EndsAdded): Promise<void> {
  const start = floorTo(from, shortestMs);
  if (start === from || start + shortestMs > to) return;
  const joined = insertBlocks(
    { hours: shortestHours, day },
    sql`${workOf(sql`b.start`, sql`b`)} group by 1, 2, 3`,
  );
  await sql`
    with b as (
      delete from run_count_devices where org_id = any(${orgIds as string[]}::text[]) and hours = ${shortestHours}
        and start = ${new Date(start)} and not is_change
      returning *
    )
    ${joined}`.execute(tx);
}

/** Makes the blocks of a length that end after `from`, and at `to` or before. */
async function build(
  tx: Db,
  blocks: Omit<EndsAdded, "day"> & { day?: string; hours: number; parts: number },
): Promise<void> {
  const { orgIds, day, from, to, hours, parts } = blocks;
  const [first, end] = [floorTo(from, hours * hourMs), floorTo(to, hours * hourMs)];
  if (first === end || orgIds.length === 0) return;
  const work = sql`${workOf(sql`date_bin(${lengthOf(hours)}, b.start, 'epoch')`, sql`run_count_devices b`)}
    where b.org_id = any(${orgIds as string[]}::text[]) and b.hours = ${parts} and b.start >= ${new Date(first)}
      and b.start < ${new Date(end)} and not b.is_change
    group by 1, 2, 3`;
  await insertBlocks({ hours, day }, work).execute(tx);
}

/**
 * Makes the blocks of several days that have the day, for each of the orgs that has sums of all
 * their days.
 */
export async function addDays(
  tx: Db,
  { orgIds, day }: { orgIds: readonly string[]; day: string },
): Promise<void> {
  const at = startOf(day);
  for (const [nth, hours] of ofDays.entries()) {
    const from = floorTo(at, hours * hourMs);
    const to = from + hours * hourMs;
    const { rows } = await sql<{ orgId: string }>`
      select org_id as "orgId" from run_count
      where org_id = any(${orgIds as string[]}::text[]) and until is null and day >= (${new Date(from)}::timestamptz at time zone 'UTC')::date
        and day < (${new Date(to)}::timestamptz at time zone 'UTC')::date
      group by 1 having count(*) = ${hours / 24}::int`.execute(tx);
    const whole = rows.map(({ orgId }) => orgId);
    if (whole.length === 0) return;
    // Days that lost their sums and got them again.
    await sql`
      delete from run_count_devices where org_id = any(${whole}::text[]) and hours = ${hours} and start = ${new Date(from)}`.execute(
      tx,
    );
    await build(tx, { orgIds: whole, from, to, hours, parts: ofDays[nth - 1] ?? 24 });
  }
}
