-- locks in access exclusive mode: run_all

-- Readers are told who ended a run: the words of an end that its device reported are the device owner's.
create or replace view run_all with (security_invoker = true) as
  select org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification, source,
    scheduled_for, window_start, window_end, due_at, created_at, start_deadline_at, timeout_ms, max_attempts, retry_of, status,
    attempt, attempt_token, not_before, claimed_at, claimed_epoch, pushed_at, started_at, last_beat_at,
    cancel_requested_at, cancel_reason, reason, past_attempts,
    null::timestamptz as finished_at, null::text as skip_reason, null::int as exit_code, ''::text as signal,
    null::bigint as duration_ms, ''::text as output_tail, null::uuid as window_id, false as is_reported
  from run
  union all
  select org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification, source,
    scheduled_for, window_start, window_end, due_at, created_at, start_deadline_at, timeout_ms, max_attempts, retry_of, status,
    attempt, attempt_token, not_before, claimed_at, claimed_epoch, pushed_at, started_at, last_beat_at,
    cancel_requested_at, cancel_reason, reason, past_attempts,
    finished_at, skip_reason, exit_code, signal, duration_ms, output_tail, window_id, is_reported
  from run_finished;
