import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { type Look, looksAlone } from "../../pg/looks.ts";
import { onlyRow } from "../../pg/values/only-row.ts";

/**
 * Jumps of the database's clock: their discovery and their resolution. scheduler/slots/clock.ts
 * judges them.
 */

export type Witness = "monotonic" | "commits";
export type Resolution = "gone" | "refuted" | "accepted" | "confirmed";

export type ClockJump = {
  id: number;
  witness: Witness;
  noticedBy: string;
  noticedAt: Date;
  expectedAt: Date;
  resolution: Resolution | null;
  resolvedBy: string | null;
};

export type Reading = {
  /** The database's clock. */
  now: Date;
  /** The newest earlier reading without doubt, on any replica. */
  seenAt: Date | null;
  /** The open jump; if none is open, the last jump. */
  last: ClockJump | null;
  /** All schedules have been checked since the clock went back (positions.ts). */
  isPlanned: boolean;
};

const jumpOf = sql`
  select jsonb_build_object('id', id, 'witness', witness, 'noticedBy', noticed_by,
    'noticedAt', extract(epoch from noticed_at) * 1000, 'expectedAt', extract(epoch from expected_at) * 1000,
    'resolution', resolution, 'resolvedBy', resolved_by)
  from clock_jump order by (resolution is null) desc, id desc limit 1`;

const epochMs = (moment: string) => sql`extract(epoch from ${sql.raw(moment)})::float8 * 1000`;

type Moments = { now: number; seenAt: number | null; isPlanned: boolean };
type LastJump = Omit<ClockJump, "noticedAt" | "expectedAt"> & { noticedAt: number; expectedAt: number };

/** The clock and its jumps. */
export const reading: Look<Reading> = {
  expression: sql`jsonb_build_object('now', ${epochMs("clock_timestamp()")},
    'seenAt', (select ${epochMs("seen_at")} from clock), 'last', (${jumpOf}),
    'isPlanned', exists (select from clock where replanned_at is not null))`,
  read(value) {
    const { now, seenAt, last, isPlanned } = value as Moments & { last: LastJump | null };
    return {
      now: new Date(now),
      seenAt: seenAt === null ? null : new Date(seenAt),
      last: last && {
        ...last,
        noticedAt: new Date(last.noticedAt),
        expectedAt: new Date(last.expectedAt),
      },
      isPlanned,
    };
  },
};

export const read = (db: Db): Promise<Reading> => looksAlone(db).ask(reading);

/**
 * Whether a time that the caller's transaction has by the database's clock is in doubt: `jumped`, a
 * jump is open; `unchecked`, the time is far later than the last reading without doubt, which
 * replicas record every minute. The next check by a replica tells.
 */
export async function findDoubt(
  tx: Db,
  { now, aheadMs }: { now: Date; aheadMs: number },
): Promise<"jumped" | "unchecked" | undefined> {
  const { rows } = await sql<{ isOpen: boolean; isAhead: boolean }>`
    select exists (select from clock_jump where resolution is null) as "isOpen",
      exists (select from clock where seen_at < ${now}::timestamptz - ${aheadMs} * interval '1 ms') as "isAhead"
  `.execute(tx);
  if (onlyRow(rows).isOpen) return "jumped";
  return onlyRow(rows).isAhead ? "unchecked" : undefined;
}

/** Records a jump, unless a jump is open already. Returns whether the jump was recorded. */
export async function open(
  db: Db,
  jump: Pick<ClockJump, "witness" | "noticedBy" | "noticedAt" | "expectedAt">,
): Promise<boolean> {
  const result = await sql`
    insert into clock_jump (witness, noticed_by, noticed_at, expected_at)
    values (${jump.witness}, ${jump.noticedBy}, ${jump.noticedAt}, ${jump.expectedAt})
    on conflict do nothing
  `.execute(db);
  return Number(result.numAffectedRows ?? 0) > 0;
}

/** Resolves the open jump and returns it. */
export async function resolve(
  db: Db,
  how: { resolution: Resolution; by: string },
): Promise<{ noticedAt: Date; expectedAt: Date } | undefined> {
  const { rows } = await sql<{ noticedAt: Date; expectedAt: Date }>`
    update clock_jump set resolution = ${how.resolution}, resolved_at = now(), resolved_by = ${how.by}
    where resolution is null
    returning noticed_at as "noticedAt", expected_at as "expectedAt"
  `.execute(db);
  return rows[0];
}

const noteEveryMs = 60_000;

/** Whether the reading is to be recorded: without it, each check of each replica asks to record. */
export function isDueToNote({ now, seenAt }: Reading): boolean {
  return !seenAt || seenAt > now || now.getTime() - seenAt.getTime() >= noteEveryMs;
}

/** Records a reading of the clock without doubt; at most once a minute. */
export async function noteSeen(db: Db): Promise<void> {
  await sql`
    update clock set seen_at = now()
    where seen_at is null or seen_at <= now() - ${noteEveryMs} * interval '1 ms' or seen_at > now()
  `.execute(db);
}

/** Maximum orgs whose logs receive the event of a jump. */
const orgsToldMax = 1_000;

export async function listOrgIds(db: Db): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`select id from org order by id limit ${orgsToldMax}`.execute(db);
  return rows.map((row) => row.id);
}

/**
 * The time of a column, or the statement's time if the column is ahead of the clock. Not `least`,
 * which turns null into a time; and not `now()`, the transaction's start, since which rows may have
 * been written by the right clock.
 */
const notAhead = (column: string) =>
  sql`case when ${sql.ref(column)} > clock_timestamp() then statement_timestamp() else ${sql.ref(column)} end`;

/** Sessions and replicas: a last heartbeat ahead would keep them alive. */
const timesOfSessions = [
  sql`update presence set connected_at = ${notAhead("connected_at")}, last_beat_at = ${notAhead("last_beat_at")},
      disconnected_at = ${notAhead("disconnected_at")}
    where greatest(connected_at, last_beat_at, disconnected_at) > clock_timestamp()`,
  sql`update replica set last_beat_at = statement_timestamp() where last_beat_at > clock_timestamp()`,
];

/** Live runs. */
const timesOfRuns = [
  sql`update run set claimed_at = ${notAhead("claimed_at")}, started_at = ${notAhead("started_at")},
      pushed_at = ${notAhead("pushed_at")}, last_beat_at = ${notAhead("last_beat_at")},
      cancel_requested_at = ${notAhead("cancel_requested_at")}, created_at = ${notAhead("created_at")},
      -- A triggered run is due at once; a slot keeps its time.
      due_at = case when scheduled_for is null then ${notAhead("due_at")} else due_at end,
      window_start = case when scheduled_for is null and window_start >= clock_timestamp()
        then statement_timestamp() - greatest(window_end - window_start, interval '1 ms') else window_start end,
      window_end = case when scheduled_for is null then ${notAhead("window_end")} else window_end end,
      not_before = case when created_at > clock_timestamp() or claimed_at > clock_timestamp() then statement_timestamp() else not_before end
    where greatest(claimed_at, started_at, pushed_at, last_beat_at, cancel_requested_at, created_at) > clock_timestamp()
      or (scheduled_for is null and due_at > clock_timestamp())`,
  // A back-off is a day at most.
  sql`update run set not_before = statement_timestamp() where not_before > now() + interval '25 hours'`,
];

/** Watchers and their schedules. */
const timesOfWatchers = [
  sql`update watcher set last_fired_at = ${notAhead("last_fired_at")},
      window_cursor_at = ${notAhead("window_cursor_at")},
      backoff_until = case when backoff_until > now() + interval '25 hours' then statement_timestamp() else backoff_until end
    where greatest(last_fired_at, window_cursor_at) > clock_timestamp()
      or backoff_until > now() + interval '25 hours'`,
  sql`update schedule_position set last_run_at = ${notAhead("last_run_at")} where last_run_at > clock_timestamp()`,
];

/** Turns and the leases of conversations. */
const timesOfTurns = [
  sql`update turn set claimed_at = ${notAhead("claimed_at")}, started_at = ${notAhead("started_at")},
      last_beat_at = ${notAhead("last_beat_at")}, created_at = ${notAhead("created_at")},
      deadline_at = case when deadline_at > now() + interval '5 minutes' then statement_timestamp() + interval '5 minutes' else deadline_at end,
      start_deadline_at = least(start_deadline_at, now() + (start_deadline_at - created_at)),
      expires_at = case when expires_at is not null
        then least(expires_at, now() + (timeout_ms + 3600000) * interval '1 ms') end
    where greatest(claimed_at, started_at, last_beat_at, created_at) > clock_timestamp()`,
  sql`update conversation set lease_expires_at = statement_timestamp() + interval '5 minutes'
    where lease_expires_at > now() + interval '1 hour'`,
];

/** Deliveries, replies, instances of platforms, and questions. */
const timesOfMessages = [
  // A back-off of a delivery is four hours at most; leases of deliveries and instances are some
  // minutes.
  sql`update delivery set since = ${notAhead("since")},
      next_at = case when next_at > now() + interval '4 hours' then statement_timestamp() else next_at end,
      lease_until = case when lease_until > now() + interval '1 hour' then statement_timestamp() else lease_until end
    where state = 'pending' and (since > clock_timestamp() or next_at > now() + interval '4 hours'
      or lease_until > now() + interval '1 hour')`,
  sql`update platform_reply set created_at = ${notAhead("created_at")}, next_at = least(next_at, now())
    where state = 'open' and (created_at > clock_timestamp() or next_at > now() + interval '25 hours')`,
  sql`update platform_instance set retry_at = case when retry_at > now() + interval '1 hour' then statement_timestamp() else retry_at end,
      lease_until = case when lease_until > now() + interval '1 hour' then statement_timestamp() else lease_until end
    where greatest(retry_at, lease_until) > now() + interval '1 hour'`,
  sql`update question set asked_at = statement_timestamp(), deadline_at = statement_timestamp() + (deadline_at - asked_at)
    where state = 'open' and asked_at > clock_timestamp()`,
];

/** Rate limits and bulk operations. */
const timesOfLimits = [
  // The report of an agent pauses a key for seven days at most.
  sql`update rate_key set starts = array(select s from unnest(starts) s where s <= clock_timestamp()),
      paused_until = case when paused_until > now() + interval '7 days' then statement_timestamp() else paused_until end,
      touched_at = ${notAhead("touched_at")}
    where touched_at > clock_timestamp() or paused_until > now() + interval '7 days'`,
  sql`update bulk_item set not_before = statement_timestamp() where state = 'pending' and not_before > now() + interval '25 hours'`,
];

/** Codes keep their lifetimes. */
const timesOfCodes = [
  sql`update join_code set created_at = statement_timestamp(), expires_at = statement_timestamp() + (expires_at - created_at) where created_at > clock_timestamp()`,
  sql`update sign_in_code set created_at = statement_timestamp(), expires_at = statement_timestamp() + (expires_at - created_at)
    where created_at > clock_timestamp()`,
];

/** In the order of locks (ARCHITECTURE.md). */
const timesOfAll = [
  ...timesOfSessions,
  ...timesOfCodes,
  ...timesOfRuns,
  ...timesOfTurns,
  ...timesOfWatchers,
  ...timesOfMessages,
  ...timesOfLimits,
];

/**
 * Corrects times that were written while the clock was ahead and would delay work or keep sessions
 * alive until then: times ahead of now become now; codes keep their lifetimes. Asks for a check of
 * all schedules ({@link Reading.isPlanned}). Returns the number of rows corrected.
 */
export async function takeBackTimes(tx: Db): Promise<number> {
  let changed = 0;
  for (const statement of timesOfAll) changed += Number((await statement.execute(tx)).numAffectedRows ?? 0);
  await sql`update clock set replanned_at = null`.execute(tx);
  return changed;
}

/** Deletes jumps resolved at least `days` days ago. */
export async function forgetOld(db: Db, { days }: { days: number }): Promise<void> {
  await sql`
    delete from clock_jump where resolution is not null and resolved_at < now() - ${days} * interval '1 day'
  `.execute(db);
}
