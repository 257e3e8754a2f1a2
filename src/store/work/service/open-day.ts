import { sql } from "kysely";
import { type Db, transaction } from "../../pg/database.ts";
import { startOf } from "./device-blocks.ts";
import { addEnds } from "./past-days.ts";

/**
 * The sums of the day that is under way, until some minutes ago: the ends after that moment are
 * counted one by one (run-counts.ts).
 *
 *   ends of the day   ├───────── in sums ─────────┤ until ├─── one by one ───┤ now
 *                      changes: by the trigger              no trigger
 *
 * `count` moves the moment on, with the day's partition locked: each end before it is either
 * visible by then and in the sums, or added by the trigger. An end after it pays for one
 * comparison. The moment is the argument of the trigger.
 */

/** How far a pass goes. */
export type Limits = {
  /** Fewer ends are left to be counted one by one. */
  endsMin: number;
  /** About as many ends are counted while the partition is locked. */
  endsMax: number;
  /** The fewest ends of an org in a day for which sums are made. */
  countedFrom: number;
  /** Milliseconds in which an end is usually committed; later ones are changes. */
  lagMs: number;
};
const limitsDefault: Limits = { endsMin: 2_000, endsMax: 10_000, countedFrom: 1_000, lagMs: 20_000 };
/** Milliseconds that a pass waits for the partition; ends wait behind it. */
const lockMsMax = 500;
/** An org without sums is looked at when it has this share of `countedFrom` in a pass. */
const noticedShare = 0.05;
/** The fewest pages that the index of a partition knows the times of together. */
const pagesPerRange = 16;

type OpenDay = { partition: string; day: string; from: Date };

/**
 * Counts ends of today; whether more is left to count. Fails with an error that passes (see
 * isPassing) if the partition is in use for longer than half a second. `takeTurn`: whether no other
 * replica does it.
 */
export async function count(
  db: Db,
  takeTurn: (tx: Db) => Promise<boolean>,
  limits: Limits = limitsDefault,
): Promise<boolean> {
  return transaction(db, async (tx) => {
    if (!(await takeTurn(tx))) return false;
    const open = await findOpen(tx);
    if (!open) return false;
    const next = await findNext(tx, open, limits);
    if (!next) return false;
    const name = sql.ref(`${open.partition}_at`);
    await sql`set local lock_timeout = ${sql.lit(lockMsMax)}`.execute(tx);
    await sql`lock table ${sql.ref(open.partition)} in share row exclusive mode`.execute(tx);
    // The pages of the counted ends are not read again.
    await sql`
      create index if not exists ${name} on ${sql.ref(open.partition)} using brin (finished_at)
      with (pages_per_range = ${sql.lit(pagesPerRange)})`.execute(tx);
    await sql`select brin_summarize_new_values(${`${open.partition}_at`}::regclass)`.execute(tx);
    await sql`call count_changed_ends(${sql.lit(open.partition)}::regclass, ${sql.lit(next.until.toISOString())}::timestamptz)`.execute(
      tx,
    );
    await addUntil(tx, open, next.until, limits.countedFrom);
    return next.isMore;
  });
}

/**
 * The partition of today, and until when it is counted. None if the day is closed: the clock was
 * set back.
 */
async function findOpen(tx: Db): Promise<OpenDay | undefined> {
  const { rows } = await sql<OpenDay>`
    select c.relname as partition, t.day::text as day, coalesce(
      (select convert_from(trim(trailing '\\x00'::bytea from g.tgargs), 'UTF8')::timestamptz from pg_trigger g
        where g.tgrelid = c.oid and g.tgname = 'counted_new' and g.tgnargs = 1),
      t.day::timestamp at time zone 'UTC') as from
    from (select (now() at time zone 'UTC')::date as day) t join pg_class c on c.relname = 'run_finished_' || to_char(t.day, 'YYYYMMDD')
      join pg_inherits i on i.inhrelid = c.oid and i.inhparent = 'run_finished'::regclass
    where not exists (
      select from pg_trigger g where g.tgrelid = c.oid and g.tgname = 'counted_new' and g.tgnargs = 0)`.execute(
    tx,
  );
  return rows[0];
}

/** The whole minute until which the pass counts. */
async function findNext(
  tx: Db,
  { partition, from }: OpenDay,
  { endsMin, endsMax, lagMs }: Limits,
): Promise<{ until: Date; isMore: boolean } | undefined> {
  const { rows } = await sql<{ until: Date; ends: number }>`
    select date_trunc('minute', finished_at, 'UTC') + interval '1 minute' as until, count(*)::int as ends
    from ${sql.ref(partition)}
    where finished_at >= ${from} and finished_at < date_trunc('minute', now() - ${lagMs} * interval '1 millisecond', 'UTC')
    group by 1 order by 1`.execute(tx);
  let [ends, nth] = [0, 0];
  while (nth < rows.length && ends < endsMax) ends += rows[nth++]!.ends;
  const last = rows[nth - 1];
  if (!last || ends < endsMin) return undefined;
  return { until: last.until, isMore: nth < rows.length };
}

async function addUntil(tx: Db, { day, from }: OpenDay, until: Date, countedFrom: number): Promise<void> {
  const start = startOf(day);
  const to = until.getTime();
  // Sums until another moment came from elsewhere.
  await sql`delete from run_count where day = ${day}::date and until <> ${from}`.execute(tx);
  const { rows: known } = await sql<{ orgId: string }>`
    update run_count set until = ${until} where day = ${day}::date and until = ${from} returning org_id as "orgId"`.execute(
    tx,
  );
  // Of the table, and not of the partition: an org behind a fence is left out.
  const { rows: begun } = await sql<{ orgId: string }>`
    insert into run_count (org_id, day, until)
    select org_id, ${day}::date, ${until}::timestamptz from (
      select org_id from run_finished where finished_at >= ${from} and finished_at < ${until}
        and org_id <> all(${known.map(({ orgId }) => orgId)}::text[])
      group by 1 having count(*) >= ${Math.ceil(countedFrom * noticedShare)}
    ) noticed
    where (select count(*) from run_finished f where f.org_id = noticed.org_id
      and f.finished_at >= ${new Date(start)} and f.finished_at < ${until}) >= ${countedFrom}
    on conflict do nothing
    returning org_id as "orgId"`.execute(tx);
  const idsOf = (rows: { orgId: string }[]) => rows.map(({ orgId }) => orgId);
  await addEnds(tx, { orgIds: idsOf(known), day, from: from.getTime(), to });
  await addEnds(tx, { orgIds: idsOf(begun), day, from: start, to });
}
