import { type RawBuilder, sql } from "kysely";
import { type Db, transaction } from "../../pg/database.ts";
import { lockGivingWay, type Send } from "../../pg/give-way.ts";
import * as openDay from "./open-day.ts";
import * as pastDays from "./past-days.ts";

/**
 * The daily partitions of ended runs and turns: created ahead of their day, and dropped as a whole
 * when they are old.
 */

/** Tables with a default partition and daily partitions named by date: "run_finished_20260131". */
const partitionedTables = ["run_finished", "turn_finished", "run_report", "late_result"];

/**
 * Partitions are created this number of days ahead, so that a database without tending for some
 * days still has partitions.
 */
const daysAhead = 3;

/**
 * Milliseconds for which tending tries to lock a table: creating and dropping partitions needs an
 * exclusive lock, and ends of runs and turns queue behind each try.
 */
const tendPatienceMs = 1_000;

/** Milliseconds that closing a day waits for the one partition that it locks. */
const closeLockMsMax = 1_000;

/**
 * A partition is analyzed when its rows have doubled. By PostgreSQL's own 10 % a day's million
 * ended runs are analyzed a hundred times, the last fifty at 0.3 s of CPU each, and every analysis
 * has the kept plans of the table made anew. The plans look rows up by keys, whatever the counts
 * are.
 */
const analyzeScaleFactor = 1;

/**
 * All replicas tend the same partitions; the lock admits one at a time, until the transaction ends.
 */
async function takeTurn(tx: Db): Promise<boolean> {
  const { rows } = await sql<{ isMine: boolean }>`
    select pg_try_advisory_xact_lock(7420001) as "isMine"`.execute(tx);
  return rows[0]?.isMine ?? false;
}

/**
 * Creates the partitions of the coming days and drops partitions older than `days` at `at`
 * (default: now); returns their names. Null if another replica is tending at the same time. Fails
 * with an error that passes (see isPassing) if the runs are in use for longer than a second.
 *
 * Each table has a transaction of its own, which locks the table with all its partitions together
 * or not at all: whoever reads one table and then wants another is never ended for it
 * (give-way.ts).
 */
export async function tend(
  db: Db,
  days: number,
  at?: Date,
): Promise<{ created: string[]; dropped: string[] } | null> {
  const created: string[] = [];
  const dropped: string[] = [];
  for (const table of partitionedTables) {
    const tended = await transaction(db, (tx) => tendTable(tx, table, days, at));
    if (!tended) return null;
    created.push(...tended.created);
    dropped.push(...tended.dropped);
  }
  return { created, dropped };
}

async function tendTable(tx: Db, table: string, days: number, at: Date | undefined) {
  if (!(await takeTurn(tx))) return null;
  const [coming, old] = [await findComing(tx, table), await findOld(tx, table, days, at)];
  if (coming.length + old.length > 0) {
    const send: Send = (statement) => sql.raw(statement).execute(tx);
    await lockGivingWay(send, new Map([["access exclusive", [table]]]), tendPatienceMs);
  }
  for (const day of coming) await createDay(tx, table, day);
  for (const name of old) await dropDay(tx, table, name);
  if (table === "run_finished") await pastDays.forget(tx, days, moment(at));
  return { created: coming.map(({ name }) => name), dropped: old };
}

/**
 * Closes the newest past day that is not closed (past-days.ts); returns its partition. Undefined if
 * all are, or if another replica is tending at the same time. Fails like `tend`. Only in a
 * transaction.
 */
export async function closePast(tx: Db, options?: { countedFrom: number }): Promise<string | undefined> {
  if (!(await takeTurn(tx))) return undefined;
  await sql`set local lock_timeout = ${sql.lit(closeLockMsMax)}`.execute(tx);
  return pastDays.closeNewest(tx, options);
}

/**
 * Counts ends of the open day (open-day.ts); whether more is left to count. Nothing is counted
 * while another replica is tending. Fails like `tend`.
 */
export function countOpenDay(db: Db, limits?: openDay.Limits): Promise<boolean> {
  return openDay.count(db, takeTurn, limits);
}

/** The time from which ages count, as a part of SQL. */
export const moment = (at: Date | undefined) => (at ? sql`${at}::timestamptz` : sql`now()`);

type Day = { name: string; start: string; end: string };

/** The days that have no partition yet, and could have one. */
async function findComing(tx: Db, table: string): Promise<Day[]> {
  const { rows } = await sql<Day>`
    select ${table} || '_' || to_char(day, 'YYYYMMDD') as name, day::date::text as start, (day + interval '1 day')::date::text as "end"
    from generate_series((now() at time zone 'UTC')::date, (now() at time zone 'UTC')::date + ${daysAhead}::int, interval '1 day') day
    where to_regclass(${table} || '_' || to_char(day, 'YYYYMMDD')) is null
      -- Rows that fell into the default partition meanwhile keep their day out of a partition of
      -- its own.
      and not exists (select from ${sql.ref(`${table}_default`)}
        where finished_at >= day at time zone 'UTC' and finished_at < (day + interval '1 day') at time zone 'UTC')
  `.execute(tx);
  return rows;
}

async function createDay(tx: Db, table: string, { name, start, end }: Day): Promise<void> {
  await sql`
    create table ${sql.ref(name)} partition of ${sql.ref(table)}
    for values from (${sql.lit(`${start} 00:00:00+00`)}) to (${sql.lit(`${end} 00:00:00+00`)})
    with (autovacuum_analyze_scale_factor = ${sql.lit(analyzeScaleFactor)})
  `.execute(tx);
}

/** Copies a watcher's last window, which outlives its run. */
export function keepLast(ended: RawBuilder<unknown>) {
  return sql`
    insert into window_kept (org_id, id, watcher_id, run_id, window_start, window_end, model_used, extracted_data, created_at)
    select x.org_id, x.id, x.watcher_id, x.id, x.window_start, x.window_end, 'device-cli',
      jsonb_build_object('kind', 'device_cli_output', 'output', x.output, 'is_truncated', x.is_output_truncated,
        'exit_code', x.exit_code, 'agent_kind', x.agent_kind) || coalesce(x.answer, '{}'),
      coalesce(x.stored_at, x.finished_at)
    from ${ended} x join watcher w on w.org_id = x.org_id and w.id = x.watcher_id and w.last_window_id = x.id
    where x.output is not null
    on conflict do nothing`;
}

async function findOld(tx: Db, table: string, days: number, at: Date | undefined): Promise<string[]> {
  const { rows } = await sql<{ name: string }>`
    select c.relname as name
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = ${table}::regclass and c.relname ~ ('^' || ${table} || '_[0-9]{8}$')
      and to_date(right(c.relname, 8), 'YYYYMMDD') < (${moment(at)} at time zone 'UTC')::date - ${days}::int
  `.execute(tx);
  return rows.map(({ name }) => name);
}

/** The table is locked, so no late result changes the partition meanwhile. */
async function dropDay(tx: Db, table: string, name: string): Promise<void> {
  if (table === "run_finished") await keepLast(sql.ref(name)).execute(tx);
  await sql`drop table ${sql.ref(name)}`.execute(tx);
}
