import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import * as deviceBlocks from "./device-blocks.ts";
import * as usage from "./usage.ts";

/**
 * Past days of ended runs, whose ends are counted without reading each (run-counts.ts). Nothing
 * here costs a run anything at its end:
 *
 *   open ─ closeNewest ─▶ closed: indexes of its ends, by time and by device; for each
 *                         org with many ends their sums; and a trigger that adds later changes to
 *                         the sums (migrations 0072, 0075)
 *
 * While a day is open it has sums until some minutes ago (open-day.ts), which are made anew as the
 * day is closed.
 *
 * The day's partition is locked meanwhile, so each end and each change is either in the sums as the
 * day is closed, or added by the trigger. A late result of the day waits.
 */

/** Milliseconds that closing a day may take. */
const closingMsMax = 600_000;
/** The sums of an org's day with fewer ends would take as long to read as its rows. */
const countedFromDefault = 1_000;

/**
 * Closes the newest past day that is not closed; returns its partition. Undefined if all are.
 * `countedFrom`: the fewest ends of an org for which sums are made. Only in a transaction, and only
 * by one replica at a time (partitions.ts).
 */
export async function closeNewest(
  tx: Db,
  { countedFrom }: { countedFrom: number } = { countedFrom: countedFromDefault },
): Promise<string | undefined> {
  const { rows } = await sql<{ name: string; day: string }>`
    select c.relname as name, to_date(right(c.relname, 8), 'YYYYMMDD')::text as day
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'run_finished'::regclass and c.relname ~ '^run_finished_[0-9]{8}$'
      and to_date(right(c.relname, 8), 'YYYYMMDD') < (now() at time zone 'UTC')::date
      -- The trigger of an open day has an argument. A day that was closed before there was the
      -- index of devices is closed once more: its sums stay.
      and not (to_regclass(c.relname || '_devices') is not null and exists (
        select from pg_trigger t where t.tgrelid = c.oid and t.tgname = 'counted_new' and t.tgnargs = 0))
    order by c.relname desc limit 1`.execute(tx);
  const [open] = rows;
  if (!open) return undefined;
  await sql`set local statement_timeout = ${sql.lit(closingMsMax)}`.execute(tx);
  await sql`lock table ${sql.ref(open.name)} in share row exclusive mode`.execute(tx);
  await sql`
    create index if not exists ${sql.ref(`${open.name}_ends`)} on ${sql.ref(open.name)} (org_id, finished_at)
    include (status, device_id, duration_ms)`.execute(tx);
  await sql`
    create index if not exists ${sql.ref(`${open.name}_devices`)} on ${sql.ref(open.name)} (org_id, device_id, finished_at)
    include (status, duration_ms) where device_id is not null`.execute(tx);
  await sql`call count_changed_ends(${sql.lit(open.name)}::regclass)`.execute(tx);
  await addSums(tx, open.day, countedFrom);
  return open.name;
}

/**
 * Makes the sums of a day (YYYY-MM-DD) for each org that has enough ends and no sums. The day is
 * locked.
 */
export async function addSums(tx: Db, day: string, countedFrom: number): Promise<void> {
  const from = deviceBlocks.startOf(day);
  const to = from + deviceBlocks.dayMs;
  await sql`delete from run_count where day = ${day}::date and until is not null`.execute(tx);
  // Of the table, and not of the partition: an org behind a fence (moves/fence.ts) is left out.
  // An org that moved here has brought its sums.
  const { rows } = await sql<{ orgId: string }>`
    insert into run_count (org_id, day)
    select org_id, ${day}::date from run_finished where finished_at >= ${new Date(from)} and finished_at < ${new Date(to)}
    group by 1 having count(*) >= ${countedFrom}
    on conflict do nothing
    returning org_id as "orgId"`.execute(tx);
  if (rows.length === 0) return;
  const orgIds = rows.map(({ orgId }) => orgId);
  await addEnds(tx, { orgIds, day, from, to });
  await deviceBlocks.addDays(tx, { orgIds, day });
  await usage.addSums(tx, { orgIds, day });
}

/** Adds the ends of a time to the sums of its day. */
export async function addEnds(tx: Db, added: deviceBlocks.EndsAdded): Promise<void> {
  const { orgIds, day, from, to } = added;
  if (orgIds.length === 0) return;
  await sql`
    with of_minute as materialized (
      select org_id, status, date_trunc('hour', finished_at, 'UTC') as hour,
        extract(minute from finished_at at time zone 'UTC')::int as minute, count(*)::int as runs
      from run_finished where finished_at >= ${new Date(from)} and finished_at < ${new Date(to)}
        and org_id = any(${orgIds as string[]}::text[])
      group by 1, 2, 3, 4
    )
    insert into run_count_hour (org_id, day, hour, status, runs, minutes)
    select h.org_id, ${day}::date, h.hour, h.status, h.runs, array(
      select coalesce(m.runs, 0) from generate_series(0, 59) nth left join of_minute m
        on m.org_id = h.org_id and m.status = h.status and m.hour = h.hour and m.minute = nth order by nth)
    from (select org_id, status, hour, sum(runs) as runs from of_minute group by 1, 2, 3) h`.execute(tx);
  await deviceBlocks.add(tx, added);
}

/** Deletes the sums of the days whose partitions `tend` drops. */
export async function forget(tx: Db, days: number, at: RawBuilder<unknown>): Promise<void> {
  const first = sql`((${at} at time zone 'UTC')::date - ${days}::int)`;
  await sql`delete from run_count where day < ${first}`.execute(tx);
  await sql`
    delete from run_count_devices where day is null and start < ${first}::timestamp at time zone 'UTC'`.execute(
    tx,
  );
}

/** Maximum days of orgs whose changes are added up in a pass. */
const addedUpMax = 20;
/** Changes of an org's day that are read as they are. */
const changesMax = 100;

/**
 * Replaces the sums and the many changes of days by new sums. The numbers stay the same at every
 * moment; a change that is added meanwhile stays a row of its own.
 */
export async function addUpChanges(db: Db, { moreThan } = { moreThan: changesMax }): Promise<void> {
  const changed = (table: "run_count_hour" | "run_count_devices") => sql`
    select org_id, day from ${sql.table(table)} where is_change group by 1, 2 having count(*) > ${moreThan} limit ${addedUpMax}`;
  await sql`
    with gone as (
      delete from run_count_hour h using (${changed("run_count_hour")}) c
      where h.org_id = c.org_id and h.day = c.day
      returning h.*
    ), of_minute as (
      select org_id, day, hour, status, nth, sum(m.runs)::int as runs
      from gone cross join lateral unnest(minutes) with ordinality m (runs, nth) group by 1, 2, 3, 4, 5
    )
    insert into run_count_hour (org_id, day, hour, status, runs, minutes)
    select org_id, day, hour, status, sum(runs), array_agg(runs order by nth)
    from of_minute group by 1, 2, 3, 4 having bool_or(runs <> 0)`.execute(db);
  // The changes of a block become one.
  await sql`
    with gone as (
      delete from run_count_devices d using (${changed("run_count_devices")}) c
      where d.org_id = c.org_id and d.day = c.day and d.is_change
      returning d.*
    )
    insert into run_count_devices (org_id, start, hours, day, device_ids, runs, busy_ms, is_change)
    select org_id, start, hours, day, array_agg(device_id), array_agg(runs), array_agg(busy_ms), true
    from (
      select g.org_id, g.start, g.hours, g.day, u.device_id, sum(u.runs)::int as runs, sum(u.busy_ms)::int8 as busy_ms
      from gone g cross join lateral unnest(g.device_ids, g.runs, g.busy_ms) u (device_id, runs, busy_ms)
      group by 1, 2, 3, 4, 5 having sum(u.runs) <> 0 or sum(u.busy_ms) <> 0
    ) changes group by 1, 2, 3, 4`.execute(db);
}
