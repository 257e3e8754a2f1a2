import { sql } from "kysely";
import { type Db, mayBeOfOneRow } from "../pg/database.ts";
import { storableJson } from "../pg/storable.ts";
import { unnest } from "../pg/unnest.ts";
import type { NotifyEntry } from "./deliveries.ts";
import type { SessionKey } from "./presence.ts";

/**
 * Settling: the one statement that takes an attempt away from its run, and the one place where a run ends.
 *
 *   finish    the run moves to run_finished; a completed one leaves its window (R5)
 *   retry     the run goes back to pending after a backoff, while its attempts last
 *   later     the run goes back to pending because its device asked for another try later, without using an attempt up
 *   withdraw  the run goes back to pending as if the attempt had not been; one that was accepted is left as it is
 *
 * Each row is locked, and the attempt token is the fence: a settlement whose token is not current changes nothing. A
 * session has its name for a second one: an attempt keeps its token when a newer session goes on with it.
 */

export type FinishedStatus = "completed" | "failed" | "timeout" | "cancelled" | "skipped";
export type SkipReason =
  | "overlap"
  | "cooldown"
  | "missed"
  | "offline_expired"
  | "no_executor"
  | "limit"
  | "budget";

export type Settlement = {
  orgId: string;
  runId: string;
  /** The attempt that is settled; null for a run that is pending. */
  attemptToken: string | null;
  /** The device that reports; null if Pinion itself settles. */
  deviceId: string | null;
  /** The session that settles; it settles only what is still its own. Absent for whoever is no session. */
  session?: SessionKey;
  action: "finish" | "finish_or_retry" | "withdraw";
  status: FinishedStatus;
  reason: string;
  skipReason?: SkipReason;
  /** For `finish_or_retry` of a failure: the device asks for another try after this, which costs no attempt. */
  laterMs?: number;
  /** For `withdraw`: how long the run is not offered again. */
  delayMs?: number;
  output?: string;
  isOutputTruncated?: boolean;
  /** Of an agent that tells: its answer, for the window beside the output. */
  answer?: { result: string; structured: unknown } | undefined;
  /** What people should look at, for the event. */
  attention?: readonly string[];
  exitCode?: number | undefined;
  signal?: string;
  durationMs?: number | undefined;
  /** Of an attempt whose accept may not be stored yet: how long ago it was pushed, and accepted. */
  pushedAgoMs?: number | undefined;
  startedAgoMs?: number | undefined;
};

/** What a session settles: always an attempt, and only its own. */
export type SessionSettlement = Settlement & { attemptToken: string; session: SessionKey };

/** What is settled by a session, or for a report that came without one. */
export type AttemptSettlement = Settlement & { attemptToken: string };

/** How failures are answered. Times in milliseconds. */
export type FailurePolicy = {
  /** Delay before the second attempt; doubles with each further one, up to `retryBackoffMsMax`. */
  retryBackoffMs: number;
  /** Failures in a row after which a watcher is backed off. */
  backoffAfter: number;
  /** Failures in a row after which a watcher is paused. */
  pauseAfter: number;
  /** First back-off of a watcher; doubles with each further failure, up to `watcherBackoffMsMax`. */
  watcherBackoffMs: number;
};

/** Longest delay before another attempt. */
const retryBackoffMsMax = 600_000;
/** How often a run may be put off to later; then a failure is one. With the default of 5 minutes that is an hour. */
const deferralsMax = 12;
/** A device that says "at once" is asked again after this at the earliest. */
const laterMsMin = 1_000;
/** The protocol's bound on what a device may ask for. */
const laterMsMax = 7 * 86_400_000;
/** Longest back-off of a watcher. */
export const watcherBackoffMsMax = 86_400_000;
/** After so many a delay grows no more: far beyond the longest ones, and far below what a float8 holds. */
export const doublingsMax = 30;
/** What a run without a window keeps of its output, in characters. */
export const outputTailCharacters = 8_000;

export type Settled = {
  orgId: string;
  runId: string;
  attemptToken: string | null;
  watcherId: string;
  /** Where the attempt was. */
  deviceId: string | null;
  agentId: string;
  /** Pinned to that device; otherwise what went back to pending waits for any worker. */
  isPinned: boolean;
  dueAt: Date;
  action: "finished" | "retried" | "deferred" | "withdrawn";
  status: FinishedStatus | "pending";
  reason: string;
  attempt: number;
  windowId: string | null;
  /** When a run that went back to pending is offered again. */
  notBefore: Date | null;
  /** Slots of the watcher wait for the end of this run, or may do so. */
  hasBacklog: boolean;
  /** The watcher was paused because of this failure. */
  isWatcherPaused: boolean;
  consecutiveFailures: number;
  /** Its end may start other watchers. */
  hasFollowers: boolean;
  /** Whom its watcher tells of its end; null: nobody, or its end is none to be told. */
  notify: readonly NotifyEntry[] | null;
  /** The watcher's last run before this one had failed. */
  wasFailing: boolean;
  /** The watcher's last window before this end. */
  priorWindowId: string | null;
  /** Of a run that ended: what people should look at. */
  attention?: readonly string[];
  /** By a report that came after the attempt had been taken away (late-results.ts). */
  isLate?: boolean;
};

/**
 * Settles up to thousands of attempts in one statement; returns those whose token was current. Run ids must be
 * distinct. A caller that has more to say in the same transaction, such as the events, passes one.
 */
export async function settle(
  db: Db,
  settlements: readonly Settlement[],
  policy: FailurePolicy,
): Promise<Settled[]> {
  if (settlements.length === 0) return [];
  const input = unnest("i", settlements, {
    org_id: ["text", (s) => s.orgId],
    run_id: ["uuid", (s) => s.runId],
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
  const { rows } = await sql<Settled>`
    -- All that is decided about a run and its watcher is decided in "held": what follows only writes, each statement from
    -- "held" alone. (The planner takes "held" for one row; a join of two of these sets would be a loop within a loop.)
    with locked as materialized (
      select r.*, i.reporter, c.outcome,
        case
          when d.fate = 'deferred' then format('%s (put off %s of %s times)', c.why, r.deferrals + 1, ${deferralsMax}::int)
          when i.later_ms is not null and r.deferrals >= ${deferralsMax} then format('%s (put off %s times before)', c.why, r.deferrals)
          else c.why
        end as why,
        i.skipped_because, i.output, i.is_truncated, i.answer, i.exit_code, i.signal,
        i.duration_ms, m.was_pushed_at, m.was_started_at, d.fate,
        -- The accept may have been written while this transaction waited for it.
        greatest(now(), m.was_started_at) as ended_at,
        -- Only what an executor did counts for or against a watcher.
        d.fate = 'finished' and c.outcome in ('completed', 'failed', 'timeout') as is_counting,
        case when d.fate = 'finished' and c.outcome = 'completed' then r.id end as window_id,
        case
          when d.fate = 'withdrawn' then now() + i.delay_ms * interval '1 ms'
          when d.fate = 'deferred' then now() + least(greatest(i.later_ms, ${laterMsMin}), ${laterMsMax}) * interval '1 ms'
          when d.fate = 'retried' then now() + least(${policy.retryBackoffMs}::float8
            * power(2, least(r.attempt - 1, ${doublingsMax})), ${retryBackoffMsMax}) * interval '1 ms'
        end as again_at
      -- One order for all who lock several runs; and each is looked up by its key, however many are live.
      from (select * from ${input} order by org_id, run_id) i
        cross join lateral (
          select * from run
          where org_id = i.org_id and id = i.run_id and attempt_token is not distinct from i.token
            and (i.reporter is null or device_id = i.reporter)
            and (i.epoch is null or (claimed_epoch = i.epoch and claimed_session = i.session_id))
            and (i.action <> 'withdraw' or status = 'claimed')
          for update
        ) r
        cross join lateral (
          select coalesce(r.pushed_at, case when i.pushed_ago_ms is not null
              then greatest(r.claimed_at, now() - i.pushed_ago_ms * interval '1 ms') end) as was_pushed_at,
            coalesce(r.started_at, case when i.started_ago_ms is not null
              then greatest(r.claimed_at, now() - i.started_ago_ms * interval '1 ms') end) as was_started_at
        ) m
        -- What Pinion itself ends after a cancellation was asked for was cancelled; what a device reports, counts.
        cross join lateral (
          select r.cancel_requested_at is not null and i.reporter is null and i.outcome in ('failed', 'timeout') as is_cancelled
        ) a
        cross join lateral (
          select case when a.is_cancelled then 'cancelled' else i.outcome end as outcome,
            case when a.is_cancelled then concat_ws('; ', nullif(r.cancel_reason, ''), nullif(i.why, ''))
              else coalesce(nullif(i.why, ''), r.cancel_reason, '') end as why
        ) c
        cross join lateral (
          select case
            -- A run whose end was asked for does not begin again.
            when r.cancel_requested_at is not null then 'finished'
            when i.action = 'withdraw' then 'withdrawn'
            when i.action = 'finish_or_retry' and i.outcome = 'failed' and i.later_ms is not null and r.deferrals < ${deferralsMax}
              then 'deferred'
            when i.action = 'finish_or_retry' and i.outcome in ('failed', 'timeout') and r.attempt < r.max_attempts then 'retried'
            else 'finished'
          end as fate
        ) d
    ),
    held as materialized (
      select l.*, j.failures, p.pauses, w.notify, w.consecutive_failures > 0 as was_failing, w.last_window_id as prior_window_id,
        exists (select from backlog b where b.org_id = l.org_id and b.watcher_id = l.watcher_id)
          -- Its next slot may be put aside at this moment, by somebody who still sees this run as active.
          or exists (select from watcher o where o.org_id = l.org_id and o.id = l.watcher_id and o.overlap <> 'skip')
          as has_backlog
      -- The watchers after all the runs, in an order of their own. What is decided about one is decided on the row as it
      -- is locked: it may have been resumed, or have lost its device, since this statement began.
      from (select * from locked order by org_id, watcher_id) l
        left join lateral (
          select status, consecutive_failures, notify, last_window_id from watcher
          -- A run that completed asks its watcher for nothing where nobody is told of it: "fired" alone writes it then.
          where l.is_counting and org_id = l.org_id and id = l.watcher_id
            and (l.outcome <> 'completed' or notify is not null)
          for no key update
        ) w on true
        cross join lateral (
          select case when l.outcome <> 'completed' then w.consecutive_failures + 1 end as failures
        ) j
        cross join lateral (
          select coalesce(j.failures >= ${policy.pauseAfter} and w.status = 'active', false) as pauses
        ) p
    ),
    gone as (
      delete from run r using held h where h.fate = 'finished' and r.org_id = h.org_id and r.id = h.id
    ),
    ended as (
      insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
        notification, source, scheduled_for, window_start, window_end, due_at, created_at, expires_at, timeout_ms,
        max_attempts, retry_of, status, attempt, attempt_token, not_before, claimed_at, claimed_epoch, pushed_at,
        started_at, last_beat_at, cancel_requested_at, cancel_reason, reason, past_attempts, finished_at, skip_reason,
        is_reported, exit_code, signal, duration_ms, output_tail, window_id, output, is_output_truncated, answer)
      select h.org_id, h.id, h.watcher_id, h.watcher_version, h.agent_id, h.agent_version, h.device_id, h.agent_kind,
        h.notification, h.source, h.scheduled_for, h.window_start, h.window_end, h.due_at, h.created_at, h.expires_at,
        h.timeout_ms, h.max_attempts, h.retry_of, h.outcome, h.attempt, h.attempt_token, h.not_before, h.claimed_at,
        h.claimed_epoch, h.was_pushed_at, h.was_started_at, h.last_beat_at, h.cancel_requested_at, h.cancel_reason, h.why,
        h.past_attempts, h.ended_at, h.skipped_because, h.reporter is not null, h.exit_code, h.signal, h.duration_ms,
        case when h.window_id is null then right(h.output, ${outputTailCharacters}) else '' end, h.window_id,
        case when h.window_id is not null then h.output end, case when h.window_id is not null then h.is_truncated end,
        case when h.window_id is not null then h.answer::jsonb end
      from held h where h.fate = 'finished'
    ),
    returned as (
      update run r set
        status = 'pending', attempt_token = null,
        -- It is placed anew.
        is_held = h.is_gated,
        -- Any worker may have it next.
        device_id = case when h.is_pinned then h.device_id end,
        claimed_at = null, claimed_epoch = null, claimed_session = null, pushed_at = null,
        -- It did start: the deadline for that is not asked about again.
        expires_at = case when h.fate in ('retried', 'deferred') then null else h.expires_at end,
        started_at = null, last_beat_at = null, cancel_requested_at = null, cancel_reason = null, reason = h.why,
        -- A withdrawn attempt was never accepted, and a deferred one could not begin: neither counts.
        attempt = case when h.fate in ('withdrawn', 'deferred') then greatest(h.attempt - 1, 0) else h.attempt end,
        deferrals = case when h.fate = 'deferred' then h.deferrals + 1 else h.deferrals end,
        not_before = h.again_at,
        -- Only the last ones are kept: a device that never accepts must not grow the row.
        past_attempts = (case when jsonb_array_length(h.past_attempts) >= 20 then h.past_attempts - 0 else h.past_attempts end)
          || jsonb_build_array(jsonb_build_object(
            'attempt', h.attempt, 'token', h.attempt_token, 'device_id', h.device_id, 'claimed_at', h.claimed_at, 'ended_at', now(),
            'last_beat_at', h.last_beat_at, 'reason', h.why, 'is_reported', h.reporter is not null))
      from held h
      where h.again_at is not null and r.org_id = h.org_id and r.id = h.id
    ),
    fired as (
      update watcher w set
        last_fired_at = case when h.reporter is not null then now() else w.last_fired_at end,
        -- A window from before the last one, of an old run's retry or a backfilled slot, is stored but is not the last.
        last_window_id = case when h.window_end >= coalesce(w.window_cursor_at, h.window_end)
          then coalesce(h.window_id, w.last_window_id) else w.last_window_id end,
        last_window_at = case when h.window_id is not null and h.window_end >= coalesce(w.window_cursor_at, h.window_end)
          then h.ended_at else w.last_window_at end,
        window_cursor_at = case when h.window_id is null then w.window_cursor_at
          else greatest(w.window_cursor_at, h.window_end) end,
        consecutive_failures = coalesce(h.failures, 0),
        backoff_until = case
          when h.failures is null or h.failures < ${policy.backoffAfter} then null
          else now() + least(${policy.watcherBackoffMs}::float8
            * power(2, least(h.failures - ${policy.backoffAfter}, ${doublingsMax})), ${watcherBackoffMsMax}) * interval '1 ms'
        end,
        status = case when h.pauses then 'paused' else w.status end,
        paused_reason = case when h.pauses
          then h.failures || ' failures in a row; the last: ' || h.why else w.paused_reason end,
        -- A slot that is due already is left to the materializer, which records it.
        next_slot_at = case when h.pauses and w.next_due_at > now() then null else w.next_slot_at end,
        next_due_at = case when h.pauses and w.next_due_at > now() then null else w.next_due_at end
      from held h
      where h.is_counting and w.org_id = h.org_id and w.id = h.watcher_id
    )
    select h.org_id as "orgId", h.id as "runId", h.attempt_token as "attemptToken", h.watcher_id as "watcherId",
      h.device_id as "deviceId", h.agent_id as "agentId", h.is_pinned as "isPinned", h.due_at as "dueAt", h.fate as action, case when h.fate = 'finished' then h.outcome else 'pending' end as status,
      h.why as reason, h.attempt, h.window_id as "windowId", h.again_at as "notBefore", h.has_backlog as "hasBacklog",
      h.pauses as "isWatcherPaused", coalesce(h.failures, 0) as "consecutiveFailures", h.notify,
      coalesce(h.was_failing, false) as "wasFailing", h.prior_window_id as "priorWindowId",
      h.fate = 'finished' and exists (select from watcher_after a where a.org_id = h.org_id and a.after_id = h.watcher_id) as "hasFollowers"
    from held h
  `.execute(db);
  return rows;
}

/** The keys that an answer adds to `extracted_data`. */
export function answerOf({ answer }: Pick<Settlement, "answer">): string | null {
  if (!answer) return null;
  const { result, structured } = answer;
  return storableJson({
    ...(result === "" ? {} : { result }),
    ...(structured === undefined ? {} : { structured }),
  });
}

/**
 * As {@link settle}; when the database refuses, the open transaction is as it was before, with the locks it held, and the
 * answer is why. What is not one row's fault (see mayBeOfOneRow) is thrown.
 */
export async function settleOrUndo(
  tx: Db,
  settlements: readonly Settlement[],
  policy: FailurePolicy,
): Promise<{ settled: Settled[] } | { error: unknown }> {
  await sql`savepoint settling`.execute(tx);
  try {
    const settled = await settle(tx, settlements, policy);
    await sql`release savepoint settling`.execute(tx);
    return { settled };
  } catch (error) {
    if (!mayBeOfOneRow(error)) throw error;
    await sql`rollback to savepoint settling`.execute(tx);
    await sql`release savepoint settling`.execute(tx);
    return { error };
  }
}

export type AttemptName = { orgId: string; deviceId: string; runId: string; attemptToken: string };
export type PastVerdict = { verdict: "already_stored" | "superseded" | "unknown"; windowId: string | null };

/** What became of attempts whose token is not current, in their order. */
export async function findVerdicts(db: Db, attempts: readonly AttemptName[]): Promise<PastVerdict[]> {
  if (attempts.length === 0) return [];
  const input = unnest("i", attempts, {
    org_id: ["text", (a) => a.orgId],
    device_id: ["uuid", (a) => a.deviceId],
    run_id: ["uuid", (a) => a.runId],
    token: ["uuid", (a) => a.attemptToken],
  });
  const { rows } = await sql<PastVerdict>`
    -- The window is the last attempt's; an earlier one that failed has none.
    select case when l.is_last then f.window_id end as "windowId",
      case
        when l.is_last and f.is_reported then 'already_stored'
        when p.entry is not null and (p.entry->>'is_reported')::boolean then 'already_stored'
        when l.is_last or p.entry is not null then 'superseded'
        else 'unknown'
      end as verdict
    from ${input}
      left join run_finished f on f.org_id = i.org_id and f.id = i.run_id
      left join run r on r.org_id = i.org_id and r.id = i.run_id
      cross join lateral (
        select coalesce(f.attempt_token = i.token and f.device_id = i.device_id, false) as is_last
      ) l
      left join lateral (
        -- Another worker may have the run by now: each attempt says where it was. One that does not was pinned.
        select entry from jsonb_array_elements(coalesce(f.past_attempts, r.past_attempts)) entry
        where entry->>'token' = i.token::text
          and coalesce((entry->>'device_id')::uuid, f.device_id, r.device_id) = i.device_id
        limit 1
      ) p on true
    order by i.ord
  `.execute(db);
  return rows;
}
