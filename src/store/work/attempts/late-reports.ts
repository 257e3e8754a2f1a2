import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { takingData } from "../../pg/failures.ts";
import { unnest } from "../../pg/values/unnest.ts";
import { answerOf } from "../runs/windows.ts";
import {
  backoffEnd,
  type FailurePolicy,
  lastWindowColumns,
  pausedColumns,
  pausedSchedulesStopped,
} from "../watchers/watcher-outcomes.ts";
import {
  type KeptResult,
  type LateReport,
  type LateVerdict,
  lateBytesMax,
  lateResultsMax,
  lockSubjects,
  storedOf,
} from "./late-results.ts";
import { outputTailCharacters, type Settled } from "./settlements.ts";

/**
 * Storing late reports of runs (late-results.ts). The statement of a round decides in three steps,
 * and then writes:
 *
 *   input ─▶ judged   what becomes of each report: `settles`, `kept`, or nothing
 *         ─▶ decided  the stored form of each report
 *         ─▶ held     the watcher, locked, with its failures after the report
 *         ─▶ writes   of run, run_finished, late_result, watcher and schedule_position
 */
type Stored = LateVerdict & {
  isKept: boolean;
  settled: Omit<Settled, "dueAt" | "notBefore"> & { dueAt: string };
  deviceId: string;
};

/**
 * Stores late reports in the caller's transaction, in their order; pairs of run id and token must
 * be distinct. Locks live runs, ended runs, and then their watchers, each in the common order for
 * locking several.
 */
export async function store(
  tx: Db,
  reports: readonly LateReport[],
  policy: FailurePolicy,
): Promise<{ verdicts: LateVerdict[]; settled: Settled[]; kept: KeptResult[] }> {
  const verdicts: LateVerdict[] = [];
  const settled: Settled[] = [];
  const kept: KeptResult[] = [];
  for (const round of roundsOf(reports)) {
    const rows = await storeRound(
      tx,
      round.map(({ report }) => report),
      policy,
    );
    for (const [place, row] of rows.entries()) {
      const { index, report } = round[place] as Placed;
      verdicts[index] = { verdict: row.verdict, windowId: row.windowId };
      if (row.verdict === "stored_late") {
        settled.push({ ...row.settled, dueAt: new Date(row.settled.dueAt), notBefore: null });
      }
      if (row.isKept) {
        const { watcherId, attempt } = row.settled;
        const { orgId, deviceId, workId, attemptToken, status: outcome } = report;
        kept.push({ orgId, deviceId, workId, attemptToken, watcherId, attempt, outcome });
      }
    }
  }
  return { verdicts, settled, kept };
}

/** A report with its place among all reports. */
type Placed = { index: number; report: LateReport };

/**
 * Groups the reports into rounds with one report per run: each report sees the changes of earlier
 * rounds.
 */
function roundsOf(reports: readonly LateReport[]): Placed[][] {
  const rounds: Placed[][] = [];
  const roundOf = new Map<string, number>();
  for (const [index, report] of reports.entries()) {
    const name = `${report.orgId} ${report.workId}`;
    const round = roundOf.get(name) ?? 0;
    roundOf.set(name, round + 1);
    rounds[round] = [...(rounds[round] ?? []), { index, report }];
  }
  return rounds;
}

async function storeRound(tx: Db, reports: readonly LateReport[], policy: FailurePolicy): Promise<Stored[]> {
  // A run that ends during the first lock is missed by the first lock and found by the second.
  await lockSubjects(tx, ["run", "run_finished"], reports);
  const query = sql<Stored>`
    with judged as materialized (${judgedReports(inputOf(reports))}),
    decided as materialized (${decidedReports}),
    held as materialized (${reportsWithWatchers(policy)}),
    removed as (${liveRunsGone}),
    ended as (${liveRunsEnded}),
    mended as (${endedRunsMended}),
    counted as (${withdrawnClaimsCounted}),
    noted as (${lateResultsStored}),
    fired as (${watchersChanged(policy)}),
    stopped as (${pausedSchedulesStopped})
    ${storedReports}
  `;
  return (await takingData(() => query.execute(tx))).rows;
}

const inputOf = (reports: readonly LateReport[]) =>
  unnest("i", reports, {
    org_id: ["text", (r) => r.orgId],
    run_id: ["uuid", (r) => r.workId],
    token: ["uuid", (r) => r.attemptToken],
    reporter: ["uuid", (r) => r.deviceId],
    outcome: ["text", (r) => r.status],
    output: ["text", (r) => r.output],
    is_truncated: ["boolean", (r) => r.isOutputTruncated],
    answer: ["text", (r) => answerOf(r)],
    is_later: ["boolean", (r) => r.laterMs !== undefined],
    exit_code: ["int", (r) => r.exitCode ?? null],
    signal: ["text", (r) => r.signal],
    why: ["text", (r) => r.reason],
    duration_ms: ["bigint", (r) => r.durationMs ?? null],
  });

/** The fate of a report: `settles` and `kept` are stored; the other fates are not. */
const fateOfReport = sql`
case
  when not t.is_last and p.entry is null then 'unknown'
  when case when t.is_last then s.is_reported else (p.entry->>'is_reported')::boolean end then 'already_stored'
  when k.is_there then 'there'
  -- A later attempt was claimed: the run belongs to the later attempt.
  when not t.is_last and not (s.attempt_token is null and p.place = jsonb_array_length(s.past)) then 'kept'
  when i.outcome = 'completed' then 'settles'
  -- A failure ends a run without further attempts, and a run that Pinion had given up; a cancelled run stays cancelled.
  when i.outcome in ('failed', 'timeout') and (case when r.id is not null
    then not i.is_later and (p.entry->>'attempt')::int >= s.max_attempts else s.status <> 'cancelled' end) then 'settles'
  when i.outcome = 'cancelled' and i.output <> '' and r.id is null and s.status = 'cancelled' then 'settles'
  -- The answer to a cancel says only that the program is gone.
  when i.outcome = 'cancelled' and i.output = '' and i.answer is null then 'nothing'
  else 'kept'
end`;

/** The run, from `run` or from `run_finished`. */
const liveOrEnded = sql`
  cross join lateral (
    select coalesce(r.past_attempts, f.past_attempts) as past, coalesce(r.watcher_id, f.watcher_id) as watcher_id,
      coalesce(r.attempt_token, f.attempt_token) as attempt_token, coalesce(r.attempt, f.attempt) as attempt,
      coalesce(r.device_id, f.device_id) as device_id, coalesce(r.max_attempts, f.max_attempts) as max_attempts,
      coalesce(r.window_start, f.window_start) as window_start, coalesce(r.window_end, f.window_end) as window_end,
      coalesce(r.due_at, f.due_at) as due_at, coalesce(r.status, f.status) as status,
      coalesce(r.agent_id, f.agent_id) as agent_id, coalesce(r.agent_kind, f.agent_kind) as agent_kind,
      coalesce(r.is_pinned, true) as is_pinned, f.is_reported, f.window_id, f.finished_at
  ) s`;

/** The reported attempt among the past attempts of the run. */
const pastAttempt = sql`
  left join lateral (
    -- Another worker may have the run by now: each past attempt names its device. A past attempt without a device was pinned.
    select entry, place from jsonb_array_elements(s.past) with ordinality a(entry, place)
    where entry->>'token' = i.token::text and coalesce((entry->>'device_id')::uuid, s.device_id) = i.reporter
    order by place desc limit 1
  ) p on true`;

/** Each report with its run and its fate. */
const judgedReports = (input: RawBuilder<unknown>) => sql`
  select i.*, r.id is not null as is_live, s.past, s.watcher_id, s.finished_at, s.window_start, s.window_end, s.due_at,
    s.is_pinned, s.agent_id, s.agent_kind, p.entry, s.status as was, coalesce(case when t.is_last then s.attempt end, (p.entry->>'attempt')::int, 0) as attempt,
    case when t.is_last then s.window_id end as stored_window_id, k.kept, k.bytes,
    ${fateOfReport} as fate
  from ${input}
    left join run r on r.org_id = i.org_id and r.id = i.run_id
    left join run_finished f on f.org_id = i.org_id and f.id = i.run_id
    ${liveOrEnded}
    cross join lateral (
      select coalesce(f.attempt_token = i.token and f.device_id = i.reporter, false) as is_last
    ) t
    ${pastAttempt}
    cross join lateral (${storedOf(sql.ref("i.run_id"))}) k`;

/** Each report with the form in which it is stored. */
const decidedReports = sql`
  select j.*, j.fate = 'settles' as is_settling, j.fate = 'kept' and j.kept < ${lateResultsMax} as is_keeping,
    case when j.fate = 'settles' and j.outcome = 'completed' then j.run_id end as window_id,
    j.bytes + octet_length(j.output) + coalesce(octet_length(j.answer), 0) > ${lateBytesMax} as is_too_much
  from judged j`;

/** The failures in a row of the watcher after the report. */
const failuresAfter = sql`
  select case
    -- Runs that failed after the end of this run still count; runs that failed before its end do not.
    when d.outcome = 'completed' and d.is_live then 0
    when d.outcome = 'completed' then (
      select count(*) filter (where x.finished_at > d.finished_at)::int from (
        select finished_at from run_finished
        where org_id = d.org_id and watcher_id = d.watcher_id and status in ('failed', 'timeout') and id <> d.run_id
        order by id desc limit w.consecutive_failures
      ) x)
    -- The failure of an ended run was counted when Pinion gave up the run.
    when d.is_live then w.consecutive_failures + 1
    else w.consecutive_failures
  end as failures`;

/**
 * Each report with its watcher. Watchers are locked after all runs, in the order of their ids.
 */
const reportsWithWatchers = (policy: FailurePolicy) => sql`
  select d.*, n.failures, q.pauses, w.status as watcher_status, w.notify, w.consecutive_failures > 0 as was_failing,
    w.last_window_id as prior_window_id,
    d.is_settling and d.is_live and (exists (select from backlog b where b.org_id = d.org_id and b.watcher_id = d.watcher_id)
      or exists (select from watcher o where o.org_id = d.org_id and o.id = d.watcher_id and o.overlap <> 'skip')) as has_backlog
  from (select * from decided order by org_id, watcher_id) d
    left join lateral (
      select status, consecutive_failures, notify, last_window_id from watcher
      where d.is_settling and d.outcome <> 'cancelled' and org_id = d.org_id and id = d.watcher_id
      for no key update
    ) w on true
    cross join lateral (${failuresAfter}) n
    cross join lateral (
      select coalesce(n.failures > w.consecutive_failures and n.failures >= ${policy.pauseAfter} and w.status = 'active', false) as pauses
    ) q`;

/** Live runs whose report settles them, deleted from `run`. */
const liveRunsGone = sql`
  delete from run r using held h where h.is_settling and h.is_live and r.org_id = h.org_id and r.id = h.run_id`;

/** Live runs whose report settles them, written to `run_finished`. */
const liveRunsEnded = sql`
  insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
    notification, source, scheduled_for, window_start, window_end, due_at, created_at, start_deadline_at, timeout_ms,
    max_attempts, retry_of, status, attempt, attempt_token, not_before, claimed_at, last_beat_at, reason, past_attempts,
    is_reported, exit_code, signal, duration_ms, output_tail, window_id, output, is_output_truncated, answer)
  select r.org_id, r.id, r.watcher_id, r.watcher_version, r.agent_id, r.agent_version, h.reporter, r.agent_kind,
    r.notification, r.source, r.scheduled_for, r.window_start, r.window_end, r.due_at, r.created_at, r.start_deadline_at,
    r.timeout_ms, r.max_attempts, r.retry_of, h.outcome, h.attempt, h.token, null, (h.entry->>'claimed_at')::timestamptz,
    (h.entry->>'last_beat_at')::timestamptz, h.why, r.past_attempts - (jsonb_array_length(r.past_attempts) - 1),
    true, h.exit_code, h.signal, h.duration_ms,
    case when h.window_id is null then right(h.output, ${outputTailCharacters}) else '' end, h.window_id,
    case when h.window_id is not null then h.output end, case when h.window_id is not null then h.is_truncated end,
    case when h.window_id is not null then h.answer::jsonb end
  from held h join run r on r.org_id = h.org_id and r.id = h.run_id
  where h.is_settling and h.is_live`;

/** Ended runs whose report settles them after all. */
const endedRunsMended = sql`
  -- finished_at stays; the row of late_result has the time of the report.
  update run_finished f set status = h.outcome, skip_reason = null, is_reported = true, attempt = h.attempt,
    attempt_token = h.token, device_id = h.reporter,
    claimed_at = coalesce(f.claimed_at, (h.entry->>'claimed_at')::timestamptz),
    last_beat_at = coalesce(f.last_beat_at, (h.entry->>'last_beat_at')::timestamptz),
    past_attempts = case when f.attempt_token is null then f.past_attempts - (jsonb_array_length(f.past_attempts) - 1)
      else f.past_attempts end,
    reason = case when h.outcome = 'cancelled' then coalesce(nullif(h.why, ''), f.reason) else h.why end,
    exit_code = h.exit_code, signal = h.signal, duration_ms = h.duration_ms,
    output_tail = case when h.window_id is null then right(h.output, ${outputTailCharacters}) else '' end,
    window_id = h.window_id, output = case when h.window_id is not null then h.output end,
    is_output_truncated = case when h.window_id is not null then h.is_truncated end,
    answer = case when h.window_id is not null then h.answer::jsonb end,
    -- The end may have been written while this transaction waited for it.
    stored_at = greatest(now(), f.finished_at)
  from held h
  where h.is_settling and not h.is_live and f.org_id = h.org_id and f.id = h.run_id and f.finished_at = h.finished_at`;

/** Waiting runs whose withdrawn claim has run, with the attempt counted. */
const withdrawnClaimsCounted = sql`
  -- A withdrawn claim did not count as an attempt; the report shows that its program has run, so the claim counts.
  update run r set attempt = greatest(r.attempt, h.attempt)
  from held h
  where h.fate = 'kept' and h.is_live and h.was = 'pending' and h.outcome in ('failed', 'timeout') and not h.is_later and r.org_id = h.org_id and r.id = h.run_id`;

/** The reports as rows of `late_result`; the output of a report that settles is with the run. */
const lateResultsStored = sql`
  insert into late_result (org_id, subject_id, kind, attempt, attempt_token, device_id, outcome, has_settled, output,
    is_output_truncated, exit_code, signal, reason, duration_ms, answer)
  select h.org_id, h.run_id, 'run', h.attempt, h.token, h.reporter, h.outcome, h.is_settling,
    case when h.is_settling then '' when h.is_too_much then right(h.output, ${outputTailCharacters}) else h.output end,
    h.is_truncated or (h.is_keeping and h.is_too_much), h.exit_code, h.signal, h.why, h.duration_ms,
    case when h.is_settling then '{}' when not h.is_too_much then coalesce(h.answer::jsonb, '{}')
      -- The end of the agent's answer: its output may be something else.
      when h.answer::jsonb ? 'result'
        then jsonb_build_object('result', right(h.answer::jsonb->>'result', ${outputTailCharacters}))
      else '{}' end
  from held h where h.is_settling or h.is_keeping`;

/** Watchers of settled runs: their last window, failures, back-off and pause. */
const watchersChanged = (policy: FailurePolicy) => sql`
  update watcher w set
    last_fired_at = now(),
    ${lastWindowColumns(sql`coalesce(h.finished_at, now())`)},
    consecutive_failures = h.failures,
    backoff_until = case
      when h.failures < ${policy.backoffAfter} then null
      when h.failures <= w.consecutive_failures then w.backoff_until
      else ${backoffEnd(policy)}
    end,
    ${pausedColumns}
  from held h
  where h.is_settling and h.watcher_status is not null and w.org_id = h.org_id and w.id = h.watcher_id`;

/** The verdict of each report, and the settlement for the caller, in the order of the reports. */
const storedReports = sql`
  select h.reporter as "deviceId", h.is_keeping as "isKept",
    case h.fate when 'settles' then 'stored_late' when 'already_stored' then 'already_stored' when 'unknown' then 'unknown'
      when 'kept' then case when h.is_keeping then 'superseded' else 'full' end
      else 'superseded' end as verdict,
    coalesce(h.window_id, case when h.fate = 'already_stored' then h.stored_window_id end) as "windowId",
    jsonb_build_object('orgId', h.org_id, 'runId', h.run_id, 'attemptToken', h.token, 'watcherId', h.watcher_id,
      'deviceId', h.reporter, 'agentId', h.agent_id, 'isPinned', h.is_pinned, 'dueAt', h.due_at, 'action', 'finished', 'status', h.outcome,
      'reason', h.why, 'attempt', h.attempt, 'windowId', h.window_id, 'hasBacklog', h.has_backlog,
      'isWatcherPaused', h.pauses, 'consecutiveFailures', coalesce(h.failures, 0), 'notify', h.notify,
      'wasFailing', coalesce(h.was_failing, false), 'priorWindowId', h.prior_window_id, 'isLate', true,
      'hasFollowers', h.is_settling and exists (select from watcher_after a where a.org_id = h.org_id and a.after_id = h.watcher_id)) as settled
  from held h order by h.ord`;
