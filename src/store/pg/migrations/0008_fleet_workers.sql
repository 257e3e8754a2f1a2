-- Fleet workers: devices that no person owns, that come with a service's token, and take what is pinned to nobody.
alter table device add column is_worker boolean not null default false;
-- The service token of the worker's latest hello. No foreign key: a token may go, and its worker's row stays a while.
alter table device add column token_id uuid;
alter table device add constraint device_worker_check
  check (is_worker = (token_id is not null) and not (is_worker and owner_id is not null));
-- workers.enter, presence.locateWorkers, workers.findFleet, workers.removeAway
create index device_worker on device (org_id) where is_worker;

-- Which token this one took over from, so that a worker's new token is known as the old one's successor.
alter table token add column predecessor_id uuid;

-- The pin as it was when the run was materialized (R4). A run that is pinned to nobody has a device_id only while a worker
-- holds it, and after it ended there.
alter table run add column is_pinned boolean;
update run set is_pinned = device_id is not null;
alter table run alter column is_pinned set not null;
alter table run add constraint run_pin_check
  check (case when is_pinned then device_id is not null else (device_id is null) = (status = 'pending') end);
-- attempts.claim for workers, workers.findFleet
create index run_unpinned on run (org_id, due_at) where device_id is null;

-- Due slots in a row that nobody could run; none once a run is materialized.
alter table watcher add column unrunnable_slots int not null default 0;
