import { type RawBuilder, sql } from "kysely";
import { entriesMax } from "../../agents/platform-state.ts";
import { repeatMs } from "../../people/requests.ts";
import type { Db } from "../../pg/database.ts";
import { isUnavailable } from "../../pg/failures.ts";
import { onlyRow } from "../../pg/values/only-row.ts";
import { keepLast, moment } from "./partitions.ts";

/**
 * Retention of rows outside of the daily partitions (partitions.ts): old rows are deleted in
 * batches, so that the live tables stay small.
 */

/** Days that sums of usage are kept, independent of the retention of runs. */
const usageDays = 400;

/** Maximum rows per DELETE on tables without partitions. */
const rowsPerDeleteMax = 5_000;

/** Maximum bulk operations per DELETE; each has many items. */
const bulksPerDeleteMax = 100;

/** Maximum starts per DELETE; each is looked up in all partitions of ended runs. */
const startsPerDeleteMax = 1_000;

/** Maximum advance of the reference time per pass. */
const sharePerPass = sql.raw("interval '1 day'");

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
  const { at } = onlyRow(rows);
  const newest = await findNewestEnd(tx, at);
  return newest ?? at;
}

/**
 * Milliseconds until a pass is due: `everyMs` after the last pass of any replica. 0 after a clock
 * that was ahead, and while the reference time is still behind the clock.
 */
export async function dueInMs(db: Db, everyMs: number): Promise<number> {
  const { rows } = await sql<{ agoMs: number | null }>`
    select (extract(epoch from now() - retained_at) * 1000)::float8 as "agoMs" from clock
  `.execute(db);
  const agoMs = rows[0]?.agoMs ?? Number.POSITIVE_INFINITY;
  return agoMs < 0 ? 0 : Math.max(0, everyMs - agoMs);
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
    const found =
      (await newestEndOf(tx, name, at, await findLastPages(tx, name))) ??
      (await newestEndOf(tx, name, at, 0));
    if (found && (!newest || found > newest)) newest = found;
    // Partitions of earlier days have earlier ends.
    if (found && name !== "run_finished_default") break;
  }
  return newest;
}

/** Pages at the end of a partition, which have its last ends: rows are only added. */
const lastPages = 64;

async function findLastPages(tx: Db, partition: string): Promise<number> {
  const { rows } = await sql<{ page: number }>`
    select greatest(0, pg_relation_size(${partition}::regclass) / current_setting('block_size')::int - ${lastPages})::float8 as page`.execute(
    tx,
  );
  return onlyRow(rows).page;
}

/** The newest end before `at` in a partition's pages from `page` on; undefined for none. */
async function newestEndOf(tx: Db, partition: string, at: Date, page: number): Promise<Date | undefined> {
  const { rows } = await sql<{ at: Date | null }>`
    select max(finished_at) as at from ${sql.ref(partition)}
    where ctid >= ${`(${page},0)`}::tid and finished_at <= ${at} and status <> 'skipped'
  `.execute(tx);
  return onlyRow(rows).at ?? undefined;
}

/** The reference times of a pass, as parts of SQL. */
type Ages = {
  now: RawBuilder<unknown>;
  /** Rows from before this time are old. */
  old: RawBuilder<unknown>;
  /** The first day that is kept, as partitions count days. */
  firstDay: RawBuilder<unknown>;
  conversationDays: number;
};

/**
 * Deletes a limited number of old rows of each table without partitions, and of conversations
 * without a message for `conversationDays` days; returns the number, and whether a table may have
 * more. Ages count from `at` (default: now). A table whose rows cannot be deleted does not keep the
 * others: the first error is thrown at the end.
 */
export async function deleteOld(
  db: Db,
  { days, conversationDays, at }: { days: number; conversationDays: number; at?: Date },
): Promise<{ deleted: number; isMore: boolean }> {
  const now = moment(at);
  const ages: Ages = {
    now,
    old: sql`${now} - ${days} * interval '1 day'`,
    firstDay: sql`((${now} at time zone 'UTC')::date - ${days}::int) at time zone 'UTC'`,
    conversationDays,
  };
  const deletions = [
    oldEvents(ages),
    ...oldOfRuns(ages),
    ...oldOfTurns(ages),
    ...oldOfPlatforms(ages),
    ...oldOfStarts(ages),
    ...oldCredentials(ages),
  ];
  let deleted = 0;
  let isMore = false;
  let failure: { error: unknown } | undefined;
  for (const { limit, run } of deletions) {
    try {
      const count = await run(db);
      deleted += count;
      isMore ||= count >= limit;
    } catch (error) {
      if (isUnavailable(error)) throw error;
      failure ??= { error };
    }
  }
  if (failure) throw failure.error;
  return { deleted, isMore };
}

/** Deletes up to `limit` old rows, and returns their number. */
type Deletion = { limit: number; run(db: Db): Promise<number> };

function deletion(statement: RawBuilder<unknown>, limit = rowsPerDeleteMax): Deletion {
  return { limit, run: async (db) => Number((await statement.execute(db)).numAffectedRows ?? 0) };
}

/**
 * Deletes up to `limit` rows of the table, as `x`, that meet the condition. Locked rows are left to
 * the next pass: a removal that deletes the same rows by a foreign key takes them in another order.
 */
function oldRows(table: string, isOld: RawBuilder<unknown>, limit = rowsPerDeleteMax): Deletion {
  const name = sql.raw(table);
  const statement = sql`delete from ${name} where ctid = any(array(
    select ctid from ${name} x where ${isOld} limit ${sql.lit(limit)} for update of x skip locked))`;
  return deletion(statement, limit);
}

function oldOfRuns({ old, firstDay }: Ages): Deletion[] {
  return [
    // A slot stays known as long as its run is live, whatever its age.
    oldRows(
      "slot",
      sql`x.created_at < ${old} and not exists (select from run r where r.org_id = x.org_id and r.id = x.run_id)`,
    ),
    // A watcher's last result stays in any case.
    oldRows(
      "window_kept",
      sql`x.created_at < ${firstDay}
        and not exists (select from watcher w where w.org_id = x.org_id and w.id = x.watcher_id and w.last_window_id = x.id)`,
    ),
    deletion(sql`with old as materialized (
        select ctid as place, * from run_finished_default where finished_at < ${old} limit ${sql.lit(rowsPerDeleteMax)}),
      kept as (${keepLast(sql`old`)})
      delete from run_finished_default where ctid = any(array(select place from old))`),
    // An open question stays as long as its run is live.
    oldRows("question", sql`x.asked_at < ${old} and x.state <> 'open'`),
    // A pending delivery is younger than three days, or was replayed.
    oldRows("delivery", sql`x.created_at < ${old} and x.state <> 'pending'`),
    oldRows("run_report_default", sql`x.finished_at < ${old}`),
    // Sums are small, and allow comparisons over a year.
    oldRows("usage_day", sql`x.day < (now() at time zone 'UTC')::date - ${usageDays}::int`),
  ];
}

function oldOfTurns({ now, old, conversationDays }: Ages): Deletion[] {
  return [
    oldRows("turn_finished_default", sql`x.finished_at < ${old}`),
    oldRows("late_result_default", sql`x.finished_at < ${old}`),
    // A message stays known as long as its turn is live, whatever its age.
    oldRows(
      "turn_message",
      sql`x.created_at < ${old} and not exists (select from turn t where t.org_id = x.org_id and t.id = x.turn_id)`,
    ),
    // A conversation with a concurrent message has a new ctid and stays.
    oldRows(
      "conversation",
      sql`x.last_turn_at < ${now} - ${conversationDays} * interval '1 day' and not exists (select from turn t
        where t.org_id = x.org_id and t.agent_id = x.agent_id and t.conversation_id = x.id)`,
    ),
  ];
}

function oldOfPlatforms({ now, old }: Ages): Deletion[] {
  return [
    oldRows("platform_state", sql`x.expires_at < ${now}`),
    // Of more entries of an adapter than the bound, the entries untouched for the longest time.
    deletion(sql`delete from platform_state where ctid = any(array(select place from (
      select ctid as place, row_number() over (partition by org_id, stable_id order by touched_at desc) as nth
      from platform_state s where (s.org_id, s.stable_id) in (
        select org_id, stable_id from platform_state group by 1, 2 having count(*) > ${entriesMax})) ranked
      where nth > ${entriesMax} limit ${sql.lit(rowsPerDeleteMax)}))`),
    // An open reply waits for its turn, or for a platform that may be back.
    oldRows("platform_reply", sql`x.created_at < ${old} and x.state <> 'open'`),
    // Older than any turn.
    oldRows("platform_question", sql`x.created_at < ${old}`),
  ];
}

function oldOfStarts({ now, old, firstDay }: Ages): Deletion[] {
  return [
    // A start stays as long as its run waits, is live, or is shown. The age counts from the first
    // kept day: each pass would look up the starts of a day that is not dropped yet.
    oldRows(
      "run_start",
      sql`x.created_at < ${firstDay}
        and not exists (select from run r where r.org_id = x.org_id and r.id = x.run_id)
        and not exists (select from backlog b where b.org_id = x.org_id and b.watcher_id = x.watcher_id and b.run_id = x.run_id)
        -- The offset makes the planner look up each start by its key; without the offset the
        -- planner joins the starts with all ended runs, and reads all of these.
        and not exists (select from run_finished f where f.org_id = x.org_id and f.id = x.run_id offset 0)`,
      startsPerDeleteMax,
    ),
    // Senders try again for days, and not for weeks.
    oldRows("hook_delivery", sql`x.received_at < ${old}`),
    // Longer than any pause that an agent may report.
    oldRows("rate_key", sql`x.touched_at < ${now} - interval '8 days'`),
    oldRows("bulk_operation", sql`x.created_at < ${old} and x.state <> 'running'`, bulksPerDeleteMax),
  ];
}

function oldCredentials({ now }: Ages): Deletion[] {
  return [
    oldRows("join_code", sql`x.expires_at < ${now} - interval '1 day'`),
    oldRows("sign_in_code", sql`x.expires_at < ${now} - interval '1 day'`),
    // The token of a browser's sign-in, and no token created by people: no list shows an ended
    // sign-in.
    deletion(sql`delete from token where (org_id, id) in (select t.org_id, t.id from token t
      join sign_in s on s.org_id = t.org_id and s.token_id = t.id
      where least(t.expires_at, t.revoked_at) < ${now} - interval '1 day' limit ${sql.lit(rowsPerDeleteMax)})`),
    oldRows("request", sql`x.created_at < ${now} - ${repeatMs} * interval '1 millisecond'`),
  ];
}

/**
 * Deletes old events like rows of other tables, and records the last deleted seq of each org, so
 * that no reader resumes over a gap.
 */
function oldEvents({ old }: Ages): Deletion {
  const statement = sql<{ count: number }>`
    with gone as (
      delete from event_row where ctid = any(array(
        select ctid from event_row where at < ${old} limit ${sql.lit(rowsPerDeleteMax)}))
      returning org_id, seq
    ),
    noted as (
      update org o set events_deleted_through = greatest(o.events_deleted_through, g.seq)
      from (select org_id, max(seq) as seq from gone group by org_id order by org_id) g where o.id = g.org_id
    )
    select count(*)::int as count from gone`;
  return { limit: rowsPerDeleteMax, run: async (db) => onlyRow((await statement.execute(db)).rows).count };
}
