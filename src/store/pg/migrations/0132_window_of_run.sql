-- A window is its ended run (docs/decisions/0011): the result is stored in the run's row. A
-- watcher's last window outlives its run, in window_kept.
alter table "window" rename to window_kept;

alter table run_finished add column output text;
alter table run_finished add column is_output_truncated boolean;
alter table run_finished add column answer jsonb;
-- For a run completed by a late result: the time of its arrival.
alter table run_finished add column stored_at timestamptz;
-- R8: a run with an empty window has no result.
alter table run_finished add constraint run_finished_window_check check (output is null or window_start < window_end);

-- The end of the last window's run, which leads to its partition.
alter table watcher add column last_window_at timestamptz;

create view "window" with (security_invoker = true) as
  select org_id, id, watcher_id, id as run_id, window_start, window_end, 'device-cli'::text as model_used,
    jsonb_build_object('kind', 'device_cli_output', 'output', output, 'is_truncated', is_output_truncated,
      'exit_code', exit_code, 'agent_kind', agent_kind) || coalesce(answer, '{}') as extracted_data,
    coalesce(stored_at, finished_at) as created_at
  from run_finished where output is not null
  union all
  select org_id, id, watcher_id, run_id, window_start, window_end, model_used, extracted_data, created_at
  from window_kept;
grant select on "window" to pinion_server, pinion_scheduler;
