import { type RawBuilder, sql } from "kysely";
import type { Quotas } from "../../people/orgs/quotas.ts";

/**
 * The consequences of a run's end for its watcher: its last window, its failures in a row, its
 * back-off and its pause. As parts of SQL for the statements that end runs (settlements.ts,
 * late-reports.ts): `w` is the watcher, and `h` is the ended run with its decisions.
 */

/** How failures are answered. Times in milliseconds. */
export type FailurePolicy = {
  /**
   * Delay before the second attempt; doubles with each further attempt, up to `retryBackoffMsMax`.
   */
  retryBackoffMs: number;
  /** Number of successive failures after which a watcher is backed off. */
  backoffAfter: number;
  /** Number of successive failures after which a watcher is paused. */
  pauseAfter: number;
  /**
   * First back-off of a watcher; doubles with each further failure, up to `watcherBackoffMsMax`.
   */
  watcherBackoffMs: number;
  /** Asked before the end of a run starts its followers; undefined: any number of runs. */
  quotas?: Quotas | undefined;
};

/** Longest back-off of a watcher. */
const watcherBackoffMsMax = 86_400_000;
/**
 * Maximum doublings of a delay: far beyond the longest delays, and far below the range of a float8.
 */
export const doublingsMax = 30;

/**
 * The watcher's last window. A window from before the last window (of an old run's retry, or of a
 * backfilled slot) is stored, and the last window stays.
 */
export const lastWindowColumns = (endedAt: RawBuilder<unknown>) => sql`
  last_window_id = case when h.window_end >= coalesce(w.window_cursor_at, h.window_end)
    then coalesce(h.window_id, w.last_window_id) else w.last_window_id end,
  last_window_at = case when h.window_id is not null and h.window_end >= coalesce(w.window_cursor_at, h.window_end)
    then ${endedAt} else w.last_window_at end,
  window_cursor_at = case when h.window_id is null then w.window_cursor_at
    else greatest(w.window_cursor_at, h.window_end) end`;

/** The end of the watcher's back-off after `h.failures` failures in a row. */
export const backoffEnd = (policy: FailurePolicy) => sql`
  now() + least(${policy.watcherBackoffMs}::float8
    * power(2, least(h.failures - ${policy.backoffAfter}, ${doublingsMax})), ${watcherBackoffMsMax}) * interval '1 ms'`;

/** The watcher's pause, if the end pauses the watcher. */
export const pausedColumns = sql`
  status = case when h.pauses then 'paused' else w.status end,
  paused_reason = case when h.pauses
    then h.failures || ' failures in a row; the last: ' || h.why else w.paused_reason end`;

/**
 * The schedules of watchers that the ends pause; the materializer records a slot that is due
 * already.
 */
export const pausedSchedulesStopped = sql`
  update schedule_position s set next_slot_at = null, next_due_at = null
  from held h
  where h.pauses and s.org_id = h.org_id and s.watcher_id = h.watcher_id and s.next_due_at > now()`;
