-- By kind: a claim for a fleet worker reads what the worker offers, however much waits for kinds that nobody does.
drop index run_unpinned;
-- attempts.claim for workers, workers.findFleet
create index run_unpinned on run (org_id, agent_kind, due_at) where device_id is null;
