import { type RawBuilder, sql } from "kysely";
import { entriesMax } from "../agents/platform-state.ts";
import { repeatMs } from "../people/requests.ts";
import type { Db } from "../pg/database.ts";

/**
 * Retention: ended runs and turns are stored in daily partitions, dropped as a whole, so that the
 * live tables stay small.
 */

/** Tables with a default partition and daily partitions named by date: "run_finished_20260131". */
const partitionedTables = ["run_finished", "turn_finished", "run_report", "late_result"];

/** Days that sums of usage are kept, independent of the retention of runs. */
const usageDays = 400;

/**
 * Partitions are created this number of days ahead, so that a database without tending for some
 * days still has partitions.
 */
const daysAhead = 3;

/** Maximum rows per DELETE on tables without partitions. */
const rowsPerDeleteMax = 5_000;

/**
 * Milliseconds that tending waits for its locks: creating and dropping partitions needs an
 * exclusive lock, and ends of runs and turns queue behind the request.
 */
const tendLockMsMax = 1_000;

/** Maximum advance of the reference time per pass. */
const sharePerPass = sql.raw("interval '1 day'");

/** All replicas tend the same partitions; the lock admits one at a time. */
const lockKey = 7_420_001;

/**
 * Creates the partitions of the coming days and drops partitions older than `days` at `at`
 * (default: now); returns their names. Null if another replica is tending at the same time. Fails
 * with lock_not_available (see isPassing) if the runs are in use for longer than a second. Only in
 * a transaction.
 */
export async function tendPartitions(
  tx: Db,
  days: number,
  at?: Date,
): Promise<{ created: string[]; dropped: string[] } | null> {
  const { rows: lock } = await sql<{
    mine: boolean;
  }>`select pg_try_advisory_xact_lock(${lockKey}) as mine`.execute(tx);
  if (!lock[0]!.mine) return null;
  await sql`set local lock_timeout = ${sql.lit(tendLockMsMax)}`.execute(tx);
  const created: string[] = [];
  const dropped: string[] = [];
  for (const table of partitionedTables) {
    created.push(...(await createComing(tx, table)));
    dropped.push(...(await dropOld(tx, table, days, at)));
  }
  return { created, dropped };
}

const moment = (at: Date | undefined) => (at ? sql`${at}::timestamptz` : sql`now()`);

/**
 * The reference time for ages in a pass. It follows the database's clock by at most a day per pass,
 * so that a pass deletes no more than a day's share; and it is never later than the end of the
 * newest run, so that a wrong clock does not make recent rows look old. To be called once per pass.
 */
export async function advance(tx: Db): Promise<Date> {
  const { rows } = await sql<{ at: Date }>`
    update clock set retained_at = least(now(), coalesce(retained_at, now()) + ${sharePerPass})
    returning retained_at as at
  `.execute(tx);
  const { at } = rows[0]!;
  const newest = await findNewestEnd(tx, at);
  return newest ?? at;
}

/**
 * The end of the newest run that ended before `at`; undefined for none. Reads as few partitions as
 * possible.
 */
async function findNewestEnd(tx: Db, at: Date): Promise<Date | undefined> {
  const { rows: partitions } = await sql<{ name: string }>`
    select c.relname as name
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = 'run_finished'::regclass and c.relname ~ '^run_finished_[0-9]{8}$'
      and to_date(right(c.relname, 8), 'YYYYMMDD') <= (${at}::timestamptz at time zone 'UTC')::date
    order by c.relname desc
  `.execute(tx);
  let newest: Date | undefined;
  for (const name of ["run_finished_default", ...partitions.map((partition) => partition.name)]) {
    const { rows } = await sql<{ at: Date | null }>`
      select max(finished_at) as at from ${sql.ref(name)} where finished_at <= ${at} and status <> 'skipped'
    `.execute(tx);
    const found = rows[0]!.at;
    if (found && (!newest || found > newest)) newest = found;
    // Partitions of earlier days have earlier ends.
    if (found && name !== "run_finished_default") break;
  }
  return newest;
}

async function createComing(tx: Db, table: string): Promise<string[]> {
  const { rows: wanted } = await sql<{ name: string; start: string; end: string }>`
    select ${table} || '_' || to_char(day, 'YYYYMMDD') as name, day::date::text as start, (day + interval '1 day')::date::text as "end"
    from generate_series((now() at time zone 'UTC')::date, (now() at time zone 'UTC')::date + ${daysAhead}::int, interval '1 day') day
    where to_regclass(${table} || '_' || to_char(day, 'YYYYMMDD')) is null
      -- Rows that fell into the default partition meanwhile keep their day out of a partition of its own.
      and not exists (select from ${sql.ref(`${table}_default`)}
        where finished_at >= day at time zone 'UTC' and finished_at < (day + interval '1 day') at time zone 'UTC')
  `.execute(tx);
  for (const { name, start, end } of wanted) {
    await sql`
      create table ${sql.ref(name)} partition of ${sql.ref(table)}
      for values from (${sql.lit(`${start} 00:00:00+00`)}) to (${sql.lit(`${end} 00:00:00+00`)})
    `.execute(tx);
  }
  return wanted.map((partition) => partition.name);
}

/** Copies a watcher's last window, which outlives its run. */
function keepLast(ended: RawBuilder<unknown>) {
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

async function dropOld(tx: Db, table: string, days: number, at?: Date): Promise<string[]> {
  const { rows: old } = await sql<{ name: string }>`
    select c.relname as name
    from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = ${table}::regclass and c.relname ~ ('^' || ${table} || '_[0-9]{8}$')
      and to_date(right(c.relname, 8), 'YYYYMMDD') < (${moment(at)} at time zone 'UTC')::date - ${days}::int
  `.execute(tx);
  for (const { name } of old) {
    if (table === "run_finished") {
      // Locked before the copy, so that no late result changes the partition meanwhile.
      await sql`lock table ${sql.ref(name)} in access exclusive mode`.execute(tx);
      await keepLast(sql.ref(name)).execute(tx);
    }
    await sql`drop table ${sql.ref(name)}`.execute(tx);
  }
  return old.map((partition) => partition.name);
}

/**
 * Deletes a limited number of old rows of each table without partitions, and of conversations
 * without a message for `conversationDays` days; returns the number, and whether a table may have
 * more. Ages count from `at` (default: now).
 */
export async function deleteOld(
  db: Db,
  { days, conversationDays, at }: { days: number; conversationDays: number; at?: Date },
): Promise<{ deleted: number; isMore: boolean }> {
  const now = moment(at);
  const old = sql`${now} - ${days} * interval '1 day'`;
  const limit = sql.lit(rowsPerDeleteMax);
  const statements = [
    // A slot stays known as long as its run is live, whatever its age.
    sql`delete from slot where ctid = any(array(select ctid from slot s where s.created_at < ${old}
      and not exists (select from run r where r.org_id = s.org_id and r.id = s.run_id) limit ${limit}))`,
    // By days, as the partitions. A watcher's last result stays in any case.
    sql`delete from window_kept where ctid = any(array(select ctid from window_kept x
      where x.created_at < ((${now} at time zone 'UTC')::date - ${days}::int) at time zone 'UTC'
      and not exists (select from watcher w
        where w.org_id = x.org_id and w.id = x.watcher_id and w.last_window_id = x.id) limit ${limit}))`,
    sql`with old as materialized (select ctid as place, * from run_finished_default where finished_at < ${old} limit ${limit}),
        kept as (${keepLast(sql`old`)})
      delete from run_finished_default where ctid = any(array(select place from old))`,
    // An open question stays as long as its run is live.
    sql`delete from question where ctid = any(array(select ctid from question q where q.asked_at < ${old}
      and q.state <> 'open' limit ${limit}))`,
    // A pending delivery is younger than three days, or was replayed.
    sql`delete from delivery where ctid = any(array(select ctid from delivery d where d.created_at < ${old}
      and d.state <> 'pending' limit ${limit}))`,
    sql`delete from run_report_default where ctid = any(array(select ctid from run_report_default where finished_at < ${old} limit ${limit}))`,
    // Sums are small, and allow comparisons over a year.
    sql`delete from usage_day where ctid = any(array(select ctid from usage_day
      where day < (now() at time zone 'UTC')::date - ${usageDays}::int limit ${limit}))`,
    sql`delete from turn_finished_default where ctid = any(array(select ctid from turn_finished_default where finished_at < ${old} limit ${limit}))`,
    sql`delete from late_result_default where ctid = any(array(select ctid from late_result_default where finished_at < ${old} limit ${limit}))`,
    // A message stays known as long as its turn is live, whatever its age.
    sql`delete from turn_message where ctid = any(array(select ctid from turn_message m where m.created_at < ${old}
      and not exists (select from turn t where t.org_id = m.org_id and t.id = m.turn_id) limit ${limit}))`,
    // A conversation with a concurrent message has a new ctid and stays.
    sql`delete from conversation where ctid = any(array(select ctid from conversation c
      where c.last_turn_at < ${now} - ${conversationDays} * interval '1 day'
      and not exists (select from turn t
        where t.org_id = c.org_id and t.agent_id = c.agent_id and t.conversation_id = c.id) limit ${limit}))`,
    // An adapter's entry that is over, or one of more than the bound, untouched the longest.
    sql`delete from platform_state where ctid = any(array(select ctid from platform_state
      where expires_at < ${now} limit ${limit}))`,
    sql`delete from platform_state where ctid = any(array(select place from (
      select ctid as place, row_number() over (partition by org_id, stable_id order by touched_at desc) as nth
      from platform_state s where (s.org_id, s.stable_id) in (
        select org_id, stable_id from platform_state group by 1, 2 having count(*) > ${entriesMax})) ranked
      where nth > ${entriesMax} limit ${limit}))`,
    // An open reply waits for its turn, or for a platform that may be back.
    sql`delete from platform_reply where ctid = any(array(select ctid from platform_reply r
      where r.created_at < ${old} and r.state <> 'open' limit ${limit}))`,
    // Older than any turn.
    sql`delete from platform_question where ctid = any(array(select ctid from platform_question
      where created_at < ${old} limit ${limit}))`,
    // A start stays as long as its run waits, is live, or is shown.
    sql`delete from run_start where ctid = any(array(select ctid from run_start s where s.created_at < ${old}
      and not exists (select from run r where r.org_id = s.org_id and r.id = s.run_id)
      and not exists (select from backlog b where b.org_id = s.org_id and b.watcher_id = s.watcher_id and b.run_id = s.run_id)
      and not exists (select from run_finished f where f.org_id = s.org_id and f.id = s.run_id) limit ${limit}))`,
    // Senders try again for days, and not for weeks.
    sql`delete from hook_delivery where ctid = any(array(select ctid from hook_delivery d where d.received_at < ${old} limit ${limit}))`,
    // Longer than any pause that an agent may report.
    sql`delete from rate_key where ctid = any(array(select ctid from rate_key
      where touched_at < ${now} - interval '8 days' limit ${limit}))`,
    sql`delete from bulk_operation where ctid = any(array(select ctid from bulk_operation
      where created_at < ${old} and state <> 'running' limit ${sql.lit(100)}))`,
    sql`delete from join_code where ctid = any(array(select ctid from join_code where expires_at < ${now} - interval '1 day' limit ${limit}))`,
    sql`delete from sign_in_code where ctid = any(array(select ctid from sign_in_code where expires_at < ${now} - interval '1 day' limit ${limit}))`,
    // A browser's cookie, and no token created by people: no list shows an ended sign-in.
    sql`delete from token where (org_id, id) in (select t.org_id, t.id from token t
      join sign_in s on s.org_id = t.org_id and s.token_id = t.id
      where least(t.expires_at, t.revoked_at) < ${now} - interval '1 day' limit ${limit})`,
    sql`delete from request where ctid = any(array(select ctid from request
      where created_at < ${now} - ${repeatMs} * interval '1 millisecond' limit ${limit}))`,
  ];
  const counts: number[] = [];
  counts.push(await deleteOldEvents(db, old));
  for (const statement of statements) counts.push(Number((await statement.execute(db)).numAffectedRows ?? 0));
  return {
    deleted: counts.reduce((sum, count) => sum + count, 0),
    isMore: counts.some((count) => count >= rowsPerDeleteMax),
  };
}

/**
 * Deletes old events like rows of other tables, and records the last deleted seq of each org, so
 * that no reader resumes over a gap.
 */
async function deleteOldEvents(db: Db, old: RawBuilder<unknown>): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    with gone as (
      delete from event_row where ctid = any(array(
        select ctid from event_row where at < ${old} limit ${sql.lit(rowsPerDeleteMax)}))
      returning org_id, seq
    ),
    noted as (
      update org o set events_deleted_through = greatest(o.events_deleted_through, g.seq)
      from (select org_id, max(seq) as seq from gone group by org_id order by org_id) g where o.id = g.org_id
    )
    select count(*)::int as count from gone`.execute(db);
  return rows[0]!.count;
}
