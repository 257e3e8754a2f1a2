-- A slot is kept by when it was recorded: by its own moment, one that a backfill recorded for long ago would be forgotten
-- at once, and a repeated backfill would run it again. What is there already counts from now.
alter table slot add column created_at timestamptz not null default now();
drop index slot_age;
-- retention.deleteOld
create index slot_age on slot using brin (created_at);
-- retention.deleteOld
create index window_age on "window" using brin (created_at);

-- runs.list for statuses: without it, the few failed runs of an org are looked for among all that ended. It costs every
-- end of a run one more index entry (the third beside the key); the row is never updated, and goes with its partition.
create index run_finished_status on run_finished (org_id, status, id desc);

-- events.list for kinds, which are prefixes. It costs every event one more index entry, about 60 bytes, in a place that
-- depends on its kind alone, so the pages that are written stay few and in memory.
create index event_kind on event (org_id, kind text_pattern_ops, seq);
