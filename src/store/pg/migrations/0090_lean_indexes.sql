-- Fewer index entries for a run's life; docs/decisions/0010.

-- R5: one result per run. A run has one window at most, which takes its id, so the key alone says so.
alter table "window" drop constraint window_org_id_run_id_key;
alter table "window" add constraint window_is_of_its_run check (id = run_id) not valid;

-- runs.list for statuses: most runs complete, so those that did are found soon in the order of ids; only the few others are
-- looked for among them.
drop index run_finished_status;
create index run_finished_status on run_finished (org_id, status, id desc) where status <> 'completed';

-- events.list for kinds: the same for the two kinds that every run leaves.
drop index event_kind;
create index event_kind on event (org_id, kind text_pattern_ops, seq) where kind not in ('run.created', 'run.completed');
