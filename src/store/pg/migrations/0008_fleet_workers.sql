-- Fleet workers: devices without an owner, connected by a service's token, which take unpinned
-- runs.
alter table device add column is_worker boolean not null default false;
-- The service token of the worker's latest hello. No foreign key: the worker's row outlives a
-- deleted token.
alter table device add column token_id uuid;
alter table device add constraint device_worker_check
  check (is_worker = (token_id is not null) and not (is_worker and owner_id is not null));
-- workers.enter, presence.locateWorkers, workers.findFleet, workers.removeAway
create index device_worker on device (org_id) where is_worker;

-- The token's predecessor in a rotation, so that a worker's new token is recognized as the
-- successor.
alter table token add column predecessor_id uuid;

-- The pin at the time of materialization (R4). An unpinned run has a device_id only while a worker
-- has its attempt, and after its end there.
alter table run add column is_pinned boolean;
update run set is_pinned = device_id is not null;
alter table run alter column is_pinned set not null;
alter table run add constraint run_pin_check
  check (case when is_pinned then device_id is not null else (device_id is null) = (status = 'pending') end);
-- attempts.claim for workers, workers.findFleet
create index run_unpinned on run (org_id, due_at) where device_id is null;

-- Number of successive due slots that no device could run; 0 after a materialized run.
alter table watcher add column unrunnable_slots int not null default 0;
