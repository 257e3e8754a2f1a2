-- locks in access exclusive mode: run

-- Each look-up of a live run has one index. "run" is often empty when PostgreSQL counts its rows, and is then taken
-- for empty when it is full: an index that begins with the org looks as good as the one with the run, and a look-up
-- read all live runs of its org.

-- attempts.claim, attempts.lockActiveOfDevice, and the reaper. For no other look-up.
drop index run_device;
create index run_device on run (org_id, device_id, is_held, due_at) where device_id is not null;
-- R1, and schedules.readLocked, which names the watcher alone.
create unique index run_one_active_next on run (watcher_id, org_id, spread_to) nulls not distinct;
drop index run_one_active;
alter index run_one_active_next rename to run_one_active;
