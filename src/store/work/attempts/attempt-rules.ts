import { type RawBuilder, sql } from "kysely";

/**
 * Rules about attempts that the statements for runs and the statements for turns have in common, as
 * parts of SQL. A part that takes `work` reads the live row (of `run` or `turn`) by this alias; `i`
 * is the caller's input.
 */

/** The row belongs to the session of the input, if a session asks at all. */
export const isOfSession = sql`(i.epoch is null or (claimed_epoch = i.epoch and claimed_session = i.session_id))`;

/**
 * Whether the end is a cancellation: Pinion itself ends work whose cancel was requested. The report
 * of a device counts as reported, also after a requested cancel.
 */
export const endsAsCancelled = (work: string) =>
  sql`${sql.ref(`${work}.cancel_requested_at`)} is not null and i.reporter is null and i.outcome in ('failed', 'timeout')`;

/**
 * The time for which the attempt has waited for answers of people; its timeout stands still for
 * that time. To be asked only of work past its timeout.
 */
export const timeAsked = (work: string) => sql`
  select coalesce(sum(least(coalesce(q.answered_at, now()), q.deadline_at + interval '5 min') - q.asked_at), interval '0')
  from question q
  where q.org_id = ${sql.ref(`${work}.org_id`)} and q.work_id = ${sql.ref(`${work}.id`)}
    and q.attempt_token = ${sql.ref(`${work}.attempt_token`)}`;

/** Maximum past attempts of a live row: a device that never accepts must not grow the row. */
const pastAttemptsMax = sql.lit(20);

/**
 * The past attempts of the work with its current attempt as the last; beyond the maximum the oldest
 * is dropped. `more` are further keys and values of the entry.
 */
export const pastAttemptsWith = (work: string, more: RawBuilder<unknown>) => {
  const past = sql.ref(`${work}.past_attempts`);
  return sql`(case when jsonb_array_length(${past}) >= ${pastAttemptsMax} then ${past} - 0 else ${past} end)
    || jsonb_build_array(jsonb_build_object('attempt', ${sql.ref(`${work}.attempt`)}, 'token', ${sql.ref(`${work}.attempt_token`)}, ${more}))`;
};

/**
 * The time of a push or a start of the run `r`, which the settlement `i` may know before the row
 * does.
 */
export const earlier = (what: "pushed" | "started") =>
  sql.raw(`coalesce(r.${what}_at, case when i.${what}_ago_ms is not null
    then greatest(r.claimed_at, now() - i.${what}_ago_ms * interval '1 ms') end)`);

/** The columns of an ended run that a completion writes, too (completions.ts). */
export const endedColumns = sql`
  org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification, source,
  scheduled_for, window_start, window_end, due_at, created_at, start_deadline_at, timeout_ms, max_attempts, retry_of, status,
  attempt, attempt_token, not_before, claimed_at, claimed_epoch, pushed_at, started_at, last_beat_at, cancel_requested_at,
  cancel_reason, reason, past_attempts, finished_at, is_reported, exit_code, signal, duration_ms, window_id, output,
  is_output_truncated, answer`;
