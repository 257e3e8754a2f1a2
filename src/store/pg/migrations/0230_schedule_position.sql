-- The position of each watcher's schedule, in a narrow table (docs/decisions/0011). A position is
-- written only by a transaction that holds the lock of its watcher's row.
create table schedule_position (
  org_id text not null,
  watcher_id uuid not null,
  next_slot_at timestamptz,
  -- The slot plus the jitter.
  next_due_at timestamptz,
  -- The latest slot with a row: later slots of the schedule have none, and are not looked up.
  last_slot_at timestamptz,
  last_run_at timestamptz,
  unrunnable_slots int not null default 0,
  primary key (org_id, watcher_id),
  foreign key (org_id, watcher_id) references watcher (org_id, id) on delete cascade,
  check ((next_slot_at is null) = (next_due_at is null))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
call protect_tenant_table('schedule_position');

insert into schedule_position (org_id, watcher_id, next_slot_at, next_due_at, last_slot_at, last_run_at, unrunnable_slots)
  select org_id, id, next_slot_at, next_due_at, last_slot_at, last_run_at, unrunnable_slots from watcher;

-- Serves schedules.lockDue, lockAhead and lookAhead.
create index schedule_due on schedule_position (next_due_at) where next_due_at is not null;

drop index watcher_due;
alter table watcher drop column next_slot_at, drop column next_due_at, drop column last_slot_at,
  drop column last_run_at, drop column unrunnable_slots;
