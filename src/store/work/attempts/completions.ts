import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { ofAnySize, unnest } from "../../pg/values/unnest.ts";
import type { NotifyEntry } from "../messages/deliveries.ts";
import { answerOf } from "../runs/windows.ts";
import { earlier, endedColumns } from "./attempt-rules.ts";
import type { AttemptName, AttemptSettlement, Settled } from "./settlements.ts";

/**
 * Completions: the end of nearly every run, in a statement of its own. The statement of
 * settlements.ts decides about attempts, deferrals and back-offs on locked rows; a completion needs
 * no such decision. Here the live run is deleted under its attempt token, and the other rows are
 * written from the deleted row. `test/property/completions.test.ts` compares the two statements.
 */

/** A device's report that its attempt completed. */
export type Completed = AttemptSettlement & {
  status: "completed";
  action: "finish_or_retry";
  deviceId: string;
  session?: undefined;
};

export function isCompleted(settlement: AttemptSettlement): settlement is Completed {
  return (
    settlement.status === "completed" &&
    settlement.action === "finish_or_retry" &&
    settlement.deviceId !== null &&
    !settlement.session
  );
}

/** Facts of an ended run, beyond its report. */
type Found = {
  ord: number;
  watcherId: string;
  agentId: string;
  isPinned: boolean;
  dueAt: Date;
  reason: string;
  attempt: number;
  hasBacklog: boolean;
  notify: readonly NotifyEntry[] | null;
  wasFailing: boolean;
  priorWindowId: string | null;
  hasFollowers: boolean;
};

/**
 * Ends runs as completed, up to thousands in one statement (R5): the run, its window and its
 * watcher. Returns the runs with a current attempt of the reporting device, like `settle` of the
 * same completions. Run ids must be distinct.
 */
export async function complete(db: Db, completions: readonly Completed[]): Promise<Settled[]> {
  if (completions.length === 0) return [];
  const input = inputOf(completions);
  // For one row a sort costs as much as the rest of the statement.
  const byWatcher = completions.length === 1 ? sql`` : sql`order by org_id, watcher_id`;
  const { rows } = await sql<Found>`${ofAnySize}
    -- The runs, in the order of locks of all transactions. The accept may have been written while this transaction waited for a run.
    with gone as (
      delete from run r using (select * from ${input} order by org_id, run_id) i
      where r.org_id = i.org_id and r.id = i.run_id and r.attempt_token = i.token and r.device_id = i.reporter
      returning r.*, i.ord, i.output, i.is_truncated, i.answer, i.exit_code, i.signal, i.duration_ms,
        coalesce(nullif(i.why, ''), r.cancel_reason, '') as why,
        ${earlier("pushed")} as was_pushed_at, ${earlier("started")} as was_started_at
    ),
    ended as (
      insert into run_finished (${endedColumns})
      select org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification, source,
        scheduled_for, window_start, window_end, due_at, created_at, start_deadline_at, timeout_ms, max_attempts, retry_of,
        'completed', attempt, attempt_token, not_before, claimed_at, claimed_epoch, was_pushed_at, was_started_at,
        last_beat_at, cancel_requested_at, cancel_reason, why, past_attempts, greatest(now(), claimed_at, was_started_at), true,
        exit_code, signal, duration_ms, id, output, is_truncated, answer::jsonb
      from gone
    ),
    fired as (
      update watcher w set
        last_fired_at = now(),
        -- A window before the watcher's last window (a retry of an old run, a backfilled slot) is stored; the last window stays the last.
        last_window_id = case when g.window_end >= coalesce(w.window_cursor_at, g.window_end) then g.id else w.last_window_id end,
        last_window_at = case when g.window_end >= coalesce(w.window_cursor_at, g.window_end)
          then greatest(now(), g.claimed_at, g.was_started_at) else w.last_window_at end,
        window_cursor_at = greatest(w.window_cursor_at, g.window_end),
        consecutive_failures = 0,
        backoff_until = null
      -- The watchers after all the runs, in an order of their own.
      from (select org_id, watcher_id, id, window_end, claimed_at, was_started_at from gone ${byWatcher}) g
      where w.org_id = g.org_id and w.id = g.watcher_id
    )
    select g.ord, g.watcher_id as "watcherId", g.agent_id as "agentId", g.is_pinned as "isPinned", g.due_at as "dueAt",
      g.why as reason, g.attempt, n.notify, coalesce(n.consecutive_failures > 0, false) as "wasFailing",
      n.last_window_id as "priorWindowId",
      -- Another transaction still sees this run as active, and may add the next slot to the backlog.
      coalesce(o.overlap <> 'skip', false)
        or exists (select from backlog b where b.org_id = g.org_id and b.watcher_id = g.watcher_id) as "hasBacklog",
      exists (select from watcher_after a where a.org_id = g.org_id and a.after_id = g.watcher_id) as "hasFollowers"
    from (select * from gone ${byWatcher}) g
      left join lateral (
        select overlap, notify is not null as is_telling from watcher where org_id = g.org_id and id = g.watcher_id
      ) o on true
      -- A message contains the failures and the window before this end, as in the locked row.
      left join lateral (
        select notify, consecutive_failures, last_window_id from watcher
        where o.is_telling and org_id = g.org_id and id = g.watcher_id
        for no key update
      ) n on true
  `.execute(db);
  return rows.map((found) => settledOf(completions[found.ord - 1] as Completed, found));
}

const inputOf = (completions: readonly Completed[]) =>
  unnest("i", completions, {
    org_id: ["text", (c) => c.orgId],
    run_id: ["uuid", (c) => c.workId],
    token: ["uuid", (c) => c.attemptToken],
    reporter: ["uuid", (c) => c.deviceId],
    why: ["text", (c) => c.reason],
    output: ["text", (c) => c.output ?? ""],
    is_truncated: ["boolean", (c) => c.isOutputTruncated ?? false],
    answer: ["text", (c) => answerOf(c)],
    exit_code: ["int", (c) => c.exitCode ?? null],
    signal: ["text", (c) => c.signal ?? ""],
    duration_ms: ["bigint", (c) => c.durationMs ?? null],
    pushed_ago_ms: ["bigint", (c) => c.pushedAgoMs ?? null],
    started_ago_ms: ["bigint", (c) => c.startedAgoMs ?? null],
  });

function settledOf({ orgId, workId, attemptToken, deviceId }: Completed, found: Found): Settled {
  return {
    orgId,
    runId: workId,
    attemptToken,
    watcherId: found.watcherId,
    deviceId,
    agentId: found.agentId,
    isPinned: found.isPinned,
    dueAt: found.dueAt,
    action: "finished",
    status: "completed",
    reason: found.reason,
    attempt: found.attempt,
    windowId: workId,
    notBefore: null,
    hasBacklog: found.hasBacklog,
    isWatcherPaused: false,
    consecutiveFailures: 0,
    hasFollowers: found.hasFollowers,
    notify: found.notify,
    wasFailing: found.wasFailing,
    priorWindowId: found.priorWindowId,
  };
}

export type PastVerdict = { verdict: "already_stored" | "superseded" | "unknown"; windowId: string | null };

/** The verdicts of attempts whose token is not current, in their order. */
export async function findVerdicts(db: Db, attempts: readonly AttemptName[]): Promise<PastVerdict[]> {
  if (attempts.length === 0) return [];
  const input = unnest("i", attempts, {
    org_id: ["text", (a) => a.orgId],
    device_id: ["uuid", (a) => a.deviceId],
    run_id: ["uuid", (a) => a.workId],
    token: ["uuid", (a) => a.attemptToken],
  });
  const { rows } = await sql<PastVerdict>`
    -- The window belongs to the last attempt; an earlier, failed attempt has no window.
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
        -- Another worker may have the run by now, so each past attempt names its device. An attempt without a device was pinned.
        select entry from jsonb_array_elements(coalesce(f.past_attempts, r.past_attempts)) entry
        where entry->>'token' = i.token::text
          and coalesce((entry->>'device_id')::uuid, f.device_id, r.device_id) = i.device_id
        limit 1
      ) p on true
    order by i.ord
  `.execute(db);
  return rows;
}
