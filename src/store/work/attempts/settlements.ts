import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import type { FinishedRunStatus, SkipReason } from "../../pg/schema/schema-work.ts";
import { ofAnySize, unnest } from "../../pg/values/unnest.ts";
import type { NotifyEntry } from "../messages/deliveries.ts";
import { type Answer, answerOf } from "../runs/windows.ts";
import type { SessionKey } from "../service/presence.ts";
import {
  backoffEnd,
  doublingsMax,
  type FailurePolicy,
  lastWindowColumns,
  pausedColumns,
  pausedSchedulesStopped,
} from "../watchers/watcher-outcomes.ts";
import { earlier, endedColumns, endsAsCancelled, isOfSession, pastAttemptsWith } from "./attempt-rules.ts";

export type { FailurePolicy, SkipReason };

/**
 * Settling: the statement that takes an attempt away from its run, or ends the run. Two other
 * statements end runs: completions.ts, a report that the current attempt completed, and
 * late-reports.ts, a report of an attempt that was taken away.
 *
 *   pending ──claim──▶ claimed ──accept──▶ running
 *      ▲                  │                   │
 *      └─ retry, later, withdraw ─┬─ settle ──┘
 *                                 └─ finish ─▶ run_finished (also from pending)
 *
 *   finish    the run moves to run_finished; a completed run leaves its window (R5)
 *   retry     the run returns to pending after a backoff, while attempts are left
 *   later     the run returns to pending at its device's request; the attempt does not count
 *   withdraw  the run returns to pending as if never claimed; an accepted attempt is left unchanged
 *
 * Each row is locked, and the attempt token is the fence: a settlement with an outdated token
 * changes nothing. A session's settlement also needs the session's name, because an attempt keeps
 * its token when a newer session continues it.
 */

export type FinishedStatus = FinishedRunStatus;

export type Settlement = {
  orgId: string;
  workId: string;
  /** The settled attempt; null for a pending run. */
  attemptToken: string | null;
  /** The reporting device; null if Pinion itself settles. */
  deviceId: string | null;
  /**
   * The settling session, which settles only its own attempts. Undefined: the settlement comes from
   * no session.
   */
  session?: SessionKey;
  action: "finish" | "finish_or_retry" | "withdraw";
  status: FinishedStatus;
  reason: string;
  skipReason?: SkipReason;
  /**
   * For `finish_or_retry` of a failure: milliseconds until another try, at the device's request;
   * the attempt does not count.
   */
  laterMs?: number;
  /** For `withdraw`: how long the run is not offered again. */
  delayMs?: number;
  output?: string;
  isOutputTruncated?: boolean;
  /** The answer of a reporting agent, for the window beside the output. */
  answer?: Answer | undefined;
  /** Reasons for people's attention, for the event. */
  attention?: readonly string[];
  exitCode?: number | undefined;
  signal?: string;
  durationMs?: number | undefined;
  /**
   * For an attempt whose accept may not be stored yet: milliseconds since the push and since the
   * accept.
   */
  pushedAgoMs?: number | undefined;
  startedAgoMs?: number | undefined;
};

/** A settlement by a session, or by a report outside of a session. */
export type AttemptSettlement = Settlement & { attemptToken: string };

/** Longest delay before another attempt. */
const retryBackoffMsMax = 600_000;
/**
 * Maximum deferrals of a run; a further deferral counts as a failure. With the default of 5 minutes
 * the maximum is an hour.
 */
const deferralsMax = 12;
/** Minimum milliseconds of a deferral, also for a device that asks for none. */
const laterMsMin = 1_000;
/** Maximum milliseconds of a deferral in the protocol. */
const laterMsMax = 7 * 86_400_000;
/** Maximum characters of output kept for a run without a window. */
export const outputTailCharacters = 8_000;
/**
 * Maximum characters of output kept for an attempt whose run began again: 20 attempts have 40,000
 * characters together.
 */
const pastTailCharacters = 2_000;

export type Settled = {
  orgId: string;
  runId: string;
  attemptToken: string | null;
  watcherId: string;
  /** The attempt's device. */
  deviceId: string | null;
  agentId: string;
  /** Pinned to the device; otherwise a run that returned to pending waits for any worker. */
  isPinned: boolean;
  dueAt: Date;
  action: "finished" | "retried" | "deferred" | "withdrawn";
  status: FinishedStatus | "pending";
  reason: string;
  attempt: number;
  windowId: string | null;
  /** For a run that returned to pending: the time from which it is offered again. */
  notBefore: Date | null;
  /** Slots of the watcher wait, or may wait, for the end of the run. */
  hasBacklog: boolean;
  /** The watcher was paused because of the failure. */
  isWatcherPaused: boolean;
  consecutiveFailures: number;
  /** The run's end may start other watchers. */
  hasFollowers: boolean;
  /** The watcher's notify entries; null: none, or an end without notices. */
  notify: readonly NotifyEntry[] | null;
  /** The watcher's previous run had failed. */
  wasFailing: boolean;
  /** The watcher's last window before the end. */
  priorWindowId: string | null;
  /** For an ended run: reasons for people's attention. */
  attention?: readonly string[];
  /** Settled by a report that came after the attempt had been taken away (late-results.ts). */
  isLate?: boolean;
};

/**
 * Settles up to thousands of attempts in one statement; returns the settlements with a current
 * token. Run ids must be distinct. A caller with further writes in the same transaction, such as
 * events, passes a transaction.
 */
export async function settle(
  db: Db,
  settlements: readonly Settlement[],
  policy: FailurePolicy,
): Promise<Settled[]> {
  if (settlements.length === 0) return [];
  const { rows } = await sql<Settled>`${ofAnySize}
    -- "locked" and "held" have all decisions about the runs and their watchers; the other parts only write, each from
    -- "held" alone. (The planner takes "held" for one row; a join of two of these sets would be a loop within a loop.)
    with locked as materialized (${lockedRuns(inputOf(settlements), policy)}),
    held as materialized (${runsWithWatchers(policy)}),
    gone as (${liveRunsGone}),
    ended as (${runsEnded}),
    returned as (${runsReturned}),
    fired as (${watchersChanged(policy)}),
    stopped as (${pausedSchedulesStopped})
    ${settledRuns}
  `.execute(db);
  return rows;
}

const inputOf = (settlements: readonly Settlement[]) =>
  unnest("i", settlements, {
    org_id: ["text", (s) => s.orgId],
    run_id: ["uuid", (s) => s.workId],
    token: ["uuid", (s) => s.attemptToken],
    reporter: ["uuid", (s) => s.deviceId],
    epoch: ["bigint", (s) => s.session?.epoch ?? null],
    session_id: ["uuid", (s) => s.session?.sessionId ?? null],
    action: ["text", (s) => s.action],
    outcome: ["text", (s) => s.status],
    why: ["text", (s) => s.reason],
    skipped_because: ["text", (s) => s.skipReason ?? null],
    delay_ms: ["bigint", (s) => s.delayMs ?? 0],
    later_ms: ["bigint", (s) => s.laterMs ?? null],
    output: ["text", (s) => s.output ?? ""],
    is_truncated: ["boolean", (s) => s.isOutputTruncated ?? false],
    answer: ["text", (s) => answerOf(s)],
    exit_code: ["int", (s) => s.exitCode ?? null],
    signal: ["text", (s) => s.signal ?? ""],
    duration_ms: ["bigint", (s) => s.durationMs ?? null],
    pushed_ago_ms: ["bigint", (s) => s.pushedAgoMs ?? null],
    started_ago_ms: ["bigint", (s) => s.startedAgoMs ?? null],
  });

/** The run under the settlement's attempt, locked. */
const lockedRun = sql`
  cross join lateral (
    select * from run
    where org_id = i.org_id and id = i.run_id and attempt_token is not distinct from i.token
      and (i.reporter is null or device_id = i.reporter)
      and ${isOfSession}
      and (i.action <> 'withdraw' or status = 'claimed')
    for update
  ) r`;

/** The fate of the run. A run with a requested cancel does not begin again. */
const fateOfRun = sql`
  cross join lateral (
    select case
      when r.cancel_requested_at is not null then 'finished'
      when i.action = 'withdraw' then 'withdrawn'
      when i.action = 'finish_or_retry' and i.outcome = 'failed' and i.later_ms is not null and r.deferrals < ${deferralsMax}
        then 'deferred'
      when i.action = 'finish_or_retry' and i.outcome in ('failed', 'timeout') and r.attempt < r.max_attempts then 'retried'
      else 'finished'
    end as fate
  ) d`;

/** The reason of the fate; a deferral tells its number. */
const whyOfFate = sql`
  case
    when d.fate = 'deferred' then format('%s (put off %s of %s times)', c.why, r.deferrals + 1, ${deferralsMax}::int)
    when i.later_ms is not null and r.deferrals >= ${deferralsMax} then format('%s (put off %s times before)', c.why, r.deferrals)
    else c.why
  end`;

/** The time from which a run that returns to pending is offered again. */
const againAt = (policy: FailurePolicy) => sql`
  case
    when d.fate = 'withdrawn' then now() + i.delay_ms * interval '1 ms'
    when d.fate = 'deferred' then now() + least(greatest(i.later_ms, ${laterMsMin}), ${laterMsMax}) * interval '1 ms'
    when d.fate = 'retried' then now() + least(${policy.retryBackoffMs}::float8
      * power(2, least(r.attempt - 1, ${doublingsMax})), ${retryBackoffMsMax}) * interval '1 ms'
  end`;

/** The runs to settle, locked, each with its report and its fate. */
const lockedRuns = (input: RawBuilder<unknown>, policy: FailurePolicy) => sql`
  select r.*, i.reporter, c.outcome,
    ${whyOfFate} as why,
    i.skipped_because, i.output, i.is_truncated, i.answer, i.exit_code, i.signal,
    i.duration_ms, m.was_pushed_at, m.was_started_at, d.fate,
    -- The claim or the accept may have been written while this transaction waited for it.
    greatest(now(), r.claimed_at, m.was_started_at) as ended_at,
    -- Only the ends that an executor caused count for or against a watcher.
    d.fate = 'finished' and c.outcome in ('completed', 'failed', 'timeout') as is_counting,
    case when d.fate = 'finished' and c.outcome = 'completed' then r.id end as window_id,
    ${againAt(policy)} as again_at
  -- One order for all statements that lock several runs. Each run is looked up by its key, however many are live.
  from (select * from ${input} order by org_id, run_id) i
    ${lockedRun}
    cross join lateral (
      select ${earlier("pushed")} as was_pushed_at, ${earlier("started")} as was_started_at
    ) m
    cross join lateral (select ${endsAsCancelled("r")} as is_cancelled) a
    cross join lateral (
      select case when a.is_cancelled then 'cancelled' else i.outcome end as outcome,
        case when a.is_cancelled then concat_ws('; ', nullif(r.cancel_reason, ''), nullif(i.why, ''))
          else coalesce(nullif(i.why, ''), r.cancel_reason, '') end as why
    ) c
    ${fateOfRun}`;

/** The runs with their watchers, locked, and the failures in a row after the end. */
const runsWithWatchers = (policy: FailurePolicy) => sql`
  select l.*, j.failures, p.pauses, w.notify, w.consecutive_failures > 0 as was_failing, w.last_window_id as prior_window_id,
    exists (select from backlog b where b.org_id = l.org_id and b.watcher_id = l.watcher_id)
      -- A transaction that still sees this run as active may put the watcher's next slot aside at this moment.
      or exists (select from watcher o where o.org_id = l.org_id and o.id = l.watcher_id and o.overlap <> 'skip')
      as has_backlog
  -- Watchers are locked after all runs, in the order of their ids. The decisions use the locked row: since this statement
  -- began, the watcher may have been resumed, or may have lost its device.
  from (select * from locked order by org_id, watcher_id) l
    left join lateral (
      select status, consecutive_failures, notify, last_window_id from watcher
      -- The end of a completed run needs no facts of a watcher without notify entries: only "fired" locks and writes that watcher.
      where l.is_counting and org_id = l.org_id and id = l.watcher_id
        and (l.outcome <> 'completed' or notify is not null)
      for no key update
    ) w on true
    cross join lateral (
      select case when l.outcome <> 'completed' then w.consecutive_failures + 1 end as failures
    ) j
    cross join lateral (
      select coalesce(j.failures >= ${policy.pauseAfter} and w.status = 'active', false) as pauses
    ) p`;

/** Ended runs, deleted from `run`. */
const liveRunsGone = sql`
  delete from run r using held h where h.fate = 'finished' and r.org_id = h.org_id and r.id = h.id`;

/** Ended runs, written to `run_finished`. */
const runsEnded = sql`
  insert into run_finished (${endedColumns}, skip_reason, output_tail)
  select h.org_id, h.id, h.watcher_id, h.watcher_version, h.agent_id, h.agent_version, h.device_id, h.agent_kind,
    h.notification, h.source, h.scheduled_for, h.window_start, h.window_end, h.due_at, h.created_at, h.start_deadline_at,
    h.timeout_ms, h.max_attempts, h.retry_of, h.outcome, h.attempt, h.attempt_token, h.not_before, h.claimed_at,
    h.claimed_epoch, h.was_pushed_at, h.was_started_at, h.last_beat_at, h.cancel_requested_at, h.cancel_reason, h.why,
    h.past_attempts, h.ended_at, h.reporter is not null, h.exit_code, h.signal, h.duration_ms, h.window_id,
    case when h.window_id is not null then h.output end, case when h.window_id is not null then h.is_truncated end,
    case when h.window_id is not null then h.answer::jsonb end, h.skipped_because,
    case when h.window_id is null then right(h.output, ${outputTailCharacters}) else '' end
  from held h where h.fate = 'finished'`;

/** Runs that return to pending. */
const runsReturned = sql`
  update run r set
    status = 'pending', attempt_token = null,
    -- A gated run is placed anew.
    is_held = h.is_gated,
    -- Any worker may claim an unpinned run next.
    device_id = case when h.is_pinned then h.device_id end,
    claimed_at = null, claimed_epoch = null, claimed_session = null, pushed_at = null,
    -- The run has started once: its start deadline does not apply any more.
    start_deadline_at = case when h.fate in ('retried', 'deferred') then null else h.start_deadline_at end,
    started_at = null, last_beat_at = null, cancel_requested_at = null, cancel_reason = null, reason = h.why,
    -- A withdrawn attempt was never accepted, and a deferred attempt could not begin: both do not count.
    attempt = case when h.fate in ('withdrawn', 'deferred') then greatest(h.attempt - 1, 0) else h.attempt end,
    deferrals = case when h.fate = 'deferred' then h.deferrals + 1 else h.deferrals end,
    not_before = h.again_at,
    past_attempts = ${pastAttemptsWith(
      "h",
      sql`'device_id', h.device_id, 'claimed_at', h.claimed_at, 'ended_at', h.ended_at,
      'last_beat_at', h.last_beat_at, 'reason', h.why, 'is_reported', h.reporter is not null,
      'output_tail', right(h.output, ${pastTailCharacters})`,
    )}
  from held h
  where h.again_at is not null and r.org_id = h.org_id and r.id = h.id`;

/** Watchers of ended runs: their last window, failures, back-off and pause. */
const watchersChanged = (policy: FailurePolicy) => sql`
  update watcher w set
    last_fired_at = case when h.reporter is not null then now() else w.last_fired_at end,
    ${lastWindowColumns(sql`h.ended_at`)},
    consecutive_failures = coalesce(h.failures, 0),
    backoff_until = case
      when h.failures is null or h.failures < ${policy.backoffAfter} then null
      else ${backoffEnd(policy)}
    end,
    ${pausedColumns}
  from held h
  where h.is_counting and w.org_id = h.org_id and w.id = h.watcher_id`;

/** The settlements for the caller. */
const settledRuns = sql`
  select h.org_id as "orgId", h.id as "runId", h.attempt_token as "attemptToken", h.watcher_id as "watcherId",
    h.device_id as "deviceId", h.agent_id as "agentId", h.is_pinned as "isPinned", h.due_at as "dueAt", h.fate as action, case when h.fate = 'finished' then h.outcome else 'pending' end as status,
    h.why as reason, h.attempt, h.window_id as "windowId", h.again_at as "notBefore", h.has_backlog as "hasBacklog",
    h.pauses as "isWatcherPaused", coalesce(h.failures, 0) as "consecutiveFailures", h.notify,
    coalesce(h.was_failing, false) as "wasFailing", h.prior_window_id as "priorWindowId",
    h.fate = 'finished' and exists (select from watcher_after a where a.org_id = h.org_id and a.after_id = h.watcher_id) as "hasFollowers"
  from held h`;

export type AttemptName = { orgId: string; deviceId: string; workId: string; attemptToken: string };
