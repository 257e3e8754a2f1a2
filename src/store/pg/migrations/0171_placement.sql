-- Runs that wait for placement: for a device that matches a selector, for room in their group, or
-- for a rate limit (src/store/work/placements.ts). Other runs have no row and no additional index
-- entry.

-- {selector, spread, group: {name, max, per}, priority, rate: {key, perMinute}}; null: the runs
-- need no placing.
alter table watcher add column placement jsonb;

-- The run has a run_gate, and is placed before it is claimed.
alter table run add column is_gated boolean not null default false;
-- The run waits for placement: claims do not see it.
alter table run add column is_held boolean not null default false;
-- An unpinned gated run is pending both with a device (placed) and without a device (held).
alter table run drop constraint run_pin_check;
alter table run add constraint run_pin_check
  check (case when is_pinned then device_id is not null when is_gated then status = 'pending' or device_id is not null
    else (device_id is null) = (status = 'pending') end);
alter table run add constraint run_held_check check (not is_held or (is_gated and status = 'pending'));
-- attempts.claim, attempts.lockActiveOfDevice: held runs come after the others, and claims do not
-- read them.
drop index run_device;
create index run_device on run (org_id, device_id, is_held, due_at);
-- attempts.claim for workers, workers.findFleet
drop index run_unpinned;
create index run_unpinned on run (org_id, agent_kind, due_at) where device_id is null and not is_held;
-- placements.listHeld
create index run_held on run (org_id, due_at) where is_held;

-- R1: at most one active run per watcher; for a watcher that runs on each matching device, at most
-- one per device. Null: not spread (yet).
alter table run add column spread_to uuid;
drop index run_one_active;
create unique index run_one_active on run (org_id, watcher_id, spread_to) nulls not distinct;

-- The conditions for placing a live run, from its watcher at the time of recording (R4). Rows of
-- ended runs are deleted by the next pass of their org.
create table run_gate (
  org_id text not null references org on delete cascade,
  run_id uuid not null,
  watcher_id uuid not null,
  selector text,
  -- The actor of the trigger, whose rights count beside the rights of the watcher's sponsor; null:
  -- started by the schedule.
  asked_by text,
  -- The agent continues the session of the watcher's last run, which is on one device.
  continues boolean not null,
  group_name text,
  group_max int,
  group_per text check (group_per in ('org', 'device')),
  priority int not null,
  rate_key text,
  rate_per_minute int,
  spread text check (spread in ('one', 'all')),
  placed_at timestamptz,
  primary key (org_id, run_id)
);
call protect_tenant_table('run_gate');

-- The recent starts under the key of a rate limit.
create table rate_key (
  org_id text not null references org on delete cascade,
  key text not null,
  -- The starts of the last minute, oldest first; no more than the largest limit.
  starts timestamptz[] not null default '{}',
  -- No start before this time, as reported by an agent.
  paused_until timestamptz,
  touched_at timestamptz not null default now(),
  primary key (org_id, key)
);
call protect_tenant_table('rate_key');
-- retention.deleteOld
create index rate_key_age on rate_key using brin (touched_at);
