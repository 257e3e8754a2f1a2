-- The end of the output of a turn's program that left no reply: shown with the turn, as with a run.
alter table turn_finished add column output_tail text not null default '';

create or replace view turn_all with (security_invoker = true) as
  select org_id, id, agent_id, agent_version, conversation_id, message_id, run_id, device_id, agent_kind, input, is_gated,
    timeout_ms, created_at, start_deadline_at, status, attempt, holder_id, claimed_at, started_at, last_beat_at,
    deadline_at, expires_at, cancel_requested_at, reason,
    null::timestamptz as finished_at, false as is_retryable, ''::text as reply, false as is_reply_truncated,
    null::int as exit_code, ''::text as signal, null::bigint as duration_ms, null::bigint as snapshot_version,
    ''::text as output_tail
  from turn
  union all
  select org_id, id, agent_id, agent_version, conversation_id, message_id, run_id, device_id, agent_kind, input, is_gated,
    timeout_ms, created_at, start_deadline_at, status, attempt, holder_id, claimed_at, started_at, last_beat_at,
    null::timestamptz, null::timestamptz, cancel_requested_at, reason,
    finished_at, is_retryable, reply, is_reply_truncated, exit_code, signal, duration_ms, snapshot_version, output_tail
  from turn_finished;
