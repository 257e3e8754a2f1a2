-- By kind: a claim for a fleet worker reads only the worker's kinds, however many runs of other
-- kinds wait.
drop index run_unpinned;
-- attempts.claim for workers, workers.findFleet
create index run_unpinned on run (org_id, agent_kind, due_at) where device_id is null;
