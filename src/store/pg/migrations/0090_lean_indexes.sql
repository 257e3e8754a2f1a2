-- Fewer index entries for a run's life; docs/decisions/0010.

-- R5: one result per run. A run has at most one window, with the run's id, so the key alone
-- suffices.
alter table "window" drop constraint window_org_id_run_id_key;
alter table "window" add constraint window_is_of_its_run check (id = run_id) not valid;

-- runs.list for statuses: most runs complete, so completed runs are found soon in the order of ids;
-- the index is only for the few others.
drop index run_finished_status;
create index run_finished_status on run_finished (org_id, status, id desc) where status <> 'completed';

-- events.list for kinds: likewise for the two kinds of every run.
drop index event_kind;
create index event_kind on event (org_id, kind text_pattern_ops, seq) where kind not in ('run.created', 'run.completed');
