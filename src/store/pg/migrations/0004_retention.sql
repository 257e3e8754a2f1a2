-- A slot is kept by the time of its recording: by its own time, an old slot recorded by a backfill
-- would be deleted at once, and a repeated backfill would run the slot again. Existing rows count
-- from now.
alter table slot add column created_at timestamptz not null default now();
drop index slot_age;
-- retention.deleteOld
create index slot_age on slot using brin (created_at);
-- retention.deleteOld
create index window_age on "window" using brin (created_at);

-- runs.list for statuses: without the index, the few failed runs of an org are searched among all
-- ended runs. The index costs every end of a run another index entry (the third beside the key);
-- the row is never updated, and dropped with its partition.
create index run_finished_status on run_finished (org_id, status, id desc);

-- events.list for kinds, which are prefixes. The index costs every event another entry, about 60
-- bytes, in a place that depends on the kind alone, so few pages are written, and all stay in
-- memory.
create index event_kind on event (org_id, kind text_pattern_ops, seq);
