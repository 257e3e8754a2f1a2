-- The base schema. Keys lead with org_id so that the tables can be sharded by tenant.
-- Times are judged by the database's clock (R7).

create function uuid_v7() returns uuid
language sql volatile parallel safe
as $$
  -- RFC 9562: 48 bits of Unix milliseconds, then random bits under version 7.
  select encode(
    set_bit(set_bit(
      overlay(uuid_send(gen_random_uuid())
        placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
        from 1 for 6),
      52, 1), 53, 1),
    'hex')::uuid
$$;

create table org (
  id text primary key,
  name text not null,
  -- Sentinels of one-time provisioning; see DESIGN 9.
  metadata jsonb not null default '{}',
  default_agent_id text,
  created_at timestamptz not null default now()
);

create table "user" (
  id uuid primary key default uuid_v7(),
  name text not null,
  email text unique,
  created_at timestamptz not null default now()
);

create table member (
  org_id text not null references org on delete cascade,
  user_id uuid not null references "user" on delete cascade,
  role text not null check (role in ('owner', 'admin', 'member')),
  created_at timestamptz not null default now(),
  primary key (org_id, user_id)
);

create table device (
  org_id text not null references org on delete cascade,
  id uuid not null default uuid_v7(),
  owner_id uuid references "user",
  install_id text not null,
  platform text not null,
  label text not null,
  app_version text not null default '',
  agent_kinds text[] not null default '{}',
  capabilities text[] not null default '{}',
  max_concurrency int not null default 1 check (max_concurrency between 1 and 64),
  created_at timestamptz not null default now(),
  primary key (org_id, id),
  unique (org_id, install_id)
);

create table token (
  org_id text not null references org on delete cascade,
  id uuid not null default uuid_v7(),
  kind text not null check (kind in ('pat', 'dev', 'svc')),
  label text not null,
  -- The secret itself is nowhere in the database.
  sha256 bytea not null unique,
  scopes text[] not null,
  user_id uuid references "user" on delete cascade,
  device_id uuid,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  last_used_at timestamptz,
  revoked_at timestamptz,
  primary key (org_id, id),
  foreign key (org_id, device_id) references device on delete cascade,
  check ((kind = 'dev') = (device_id is not null))
);

create table join_code (
  org_id text not null references org on delete cascade,
  sha256 bytea primary key,
  user_id uuid references "user" on delete cascade,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  used_at timestamptz
);

-- A row for each `pinion serve`. A replica with an old heartbeat is gone, and its streams with it.
create table replica (
  id text primary key,
  address text not null,
  started_at timestamptz not null default now(),
  last_beat_at timestamptz not null default now()
);

-- The replica with a device's stream, and the time of the last heartbeat. Rewritten every second
-- for all heartbeats, so the table is narrow, leaves room in its pages, and has no index on a time:
-- every heartbeat is a HOT update.
create table presence (
  org_id text not null,
  device_id uuid not null,
  epoch bigint not null default 0,
  replica_id text,
  connected_at timestamptz,
  disconnected_at timestamptz,
  last_beat_at timestamptz,
  primary key (org_id, device_id),
  foreign key (org_id, device_id) references device on delete cascade
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);

create table agent (
  org_id text not null references org on delete cascade,
  id text not null,
  name text not null,
  owner_id uuid references "user",
  version int not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (org_id, id)
);

-- The versions of agents. Runs refer to a version, so later edits do not affect them (R4).
create table agent_revision (
  org_id text not null,
  agent_id text not null,
  version int not null,
  name text not null,
  settings jsonb not null,
  primary key (org_id, agent_id, version)
);

create table watcher (
  org_id text not null references org on delete cascade,
  id uuid not null default uuid_v7(),
  slug text not null,
  request_id text,
  version int not null default 1,
  name text not null,
  agent_id text not null,
  device_id uuid,
  agent_kind text not null default '',
  schedule text,
  time_zone text not null default 'UTC',
  overlap text not null default 'skip' check (overlap in ('skip', 'queue_one')),
  catchup text not null default 'collapse' check (catchup in ('collapse', 'miss')),
  catchup_window_ms bigint not null default 86400000,
  jitter_ms bigint not null default 0,
  min_cooldown_ms bigint not null default 0,
  start_deadline_ms bigint,
  timeout_ms bigint not null default 3600000,
  max_attempts int not null default 1,
  notification text not null default 'none' check (notification in ('none', 'on_failure', 'always')),
  status text not null default 'active' check (status in ('active', 'paused', 'no_executor')),
  paused_reason text not null default '',
  -- The schedule's position. Moved only by the transaction that records the slot (R3), and by an
  -- edit of the schedule.
  next_slot_at timestamptz,
  next_due_at timestamptz,
  last_run_at timestamptz,
  last_fired_at timestamptz,
  -- End of the last stored window: the next run's window starts here. Null before the first.
  window_cursor_at timestamptz,
  last_window_id uuid,
  consecutive_failures int not null default 0,
  backoff_until timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (org_id, id),
  unique (org_id, slug),
  unique (org_id, request_id),
  foreign key (org_id, device_id) references device,
  check ((next_slot_at is null) = (next_due_at is null))
) with (fillfactor = 70);
-- schedules.lockDue, schedules.lookAhead
create index watcher_due on watcher (next_due_at) where next_due_at is not null;
-- watchers.list for a device, devices.remove
create index watcher_device on watcher (org_id, device_id) where device_id is not null;

-- The versions of watchers (R4).
create table watcher_revision (
  org_id text not null,
  watcher_id uuid not null,
  version int not null,
  name text not null,
  prompt text not null,
  extraction_schema jsonb,
  primary key (org_id, watcher_id, version),
  foreign key (org_id, watcher_id) references watcher on delete cascade
);

-- Slots that wait for the end of the watcher's active run: the latest slot of a queue_one watcher,
-- and backfilled slots.
create table backlog (
  org_id text not null,
  watcher_id uuid not null,
  scheduled_for timestamptz not null,
  source text not null check (source in ('scheduled', 'backfill')),
  primary key (org_id, watcher_id, scheduled_for),
  foreign key (org_id, watcher_id) references watcher on delete cascade
);

-- Every slot with a row, once (R2): the writer of a scheduled run writes its slot in the same
-- statement.
create table slot (
  org_id text not null,
  watcher_id uuid not null,
  scheduled_for timestamptz not null,
  run_id uuid not null,
  primary key (org_id, watcher_id, scheduled_for)
);
-- retention.deleteOld
create index slot_age on slot using brin (scheduled_for);

-- Live runs: pending, claimed, running. A run moves to run_finished at its end, so the table stays
-- small. No index has a column that changes between claim and end, so such updates are HOT updates.
create table run (
  org_id text not null,
  id uuid not null default uuid_v7(),
  watcher_id uuid not null,
  watcher_version int not null,
  agent_id text not null,
  agent_version int not null,
  device_id uuid,
  agent_kind text not null,
  notification text not null,
  source text not null check (source in ('scheduled', 'manual', 'backfill')),
  scheduled_for timestamptz,
  window_start timestamptz not null,
  window_end timestamptz not null,
  due_at timestamptz not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz,
  timeout_ms bigint not null,
  max_attempts int not null,
  retry_of uuid,
  status text not null default 'pending' check (status in ('pending', 'claimed', 'running')),
  attempt int not null default 0,
  -- The fence: set by the claim, unguessable, and in every message about the attempt. Null while
  -- pending.
  attempt_token uuid,
  not_before timestamptz,
  claimed_at timestamptz,
  -- The device session with the claim.
  claimed_epoch bigint,
  pushed_at timestamptz,
  started_at timestamptz,
  last_beat_at timestamptz,
  cancel_requested_at timestamptz,
  cancel_reason text,
  reason text not null default '',
  -- [{attempt, token, claimed_at, ended_at, last_beat_at, reason, is_reported}], oldest first.
  past_attempts jsonb not null default '[]',
  primary key (org_id, id),
  check ((status = 'pending') = (attempt_token is null))
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
-- R1: at most one active run per watcher.
create unique index run_one_active on run (org_id, watcher_id);
-- attempts.claim, attempts.lockActiveOfDevice
create index run_device on run (org_id, device_id, due_at);
-- runs.lockExpired
create index run_expires on run (expires_at) where expires_at is not null;

-- Ended runs. Old partitions are dropped.
create table run_finished (
  org_id text not null,
  id uuid not null,
  watcher_id uuid not null,
  watcher_version int not null,
  agent_id text not null,
  agent_version int not null,
  device_id uuid,
  agent_kind text not null,
  notification text not null,
  source text not null,
  scheduled_for timestamptz,
  window_start timestamptz not null,
  window_end timestamptz not null,
  due_at timestamptz not null,
  created_at timestamptz not null,
  expires_at timestamptz,
  timeout_ms bigint not null,
  max_attempts int not null,
  retry_of uuid,
  status text not null check (status in ('completed', 'failed', 'timeout', 'cancelled', 'skipped')),
  attempt int not null,
  attempt_token uuid,
  not_before timestamptz,
  claimed_at timestamptz,
  claimed_epoch bigint,
  pushed_at timestamptz,
  started_at timestamptz,
  last_beat_at timestamptz,
  cancel_requested_at timestamptz,
  cancel_reason text,
  reason text not null,
  past_attempts jsonb not null,
  finished_at timestamptz not null default now(),
  skip_reason text check (skip_reason in ('overlap', 'cooldown', 'missed', 'offline_expired', 'no_executor')),
  -- The device itself reported the end, under attempt_token; otherwise Pinion ended it.
  is_reported boolean not null default false,
  exit_code int,
  signal text not null default '',
  duration_ms bigint,
  output_tail text not null default '',
  window_id uuid,
  primary key (org_id, id, finished_at),
  check ((status = 'skipped') = (skip_reason is not null))
) partition by range (finished_at);
-- runs.list for a watcher
create index run_finished_watcher on run_finished (org_id, watcher_id, id desc);
-- runs.list for a device
create index run_finished_device on run_finished (org_id, device_id, id desc) where device_id is not null;
-- Takes ends outside of the daily partitions (after days of downtime), so that no end is ever
-- refused.
create table run_finished_default partition of run_finished default;

-- All runs, for readers.
create view run_all as
  select org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification, source,
    scheduled_for, window_start, window_end, due_at, created_at, expires_at, timeout_ms, max_attempts, retry_of, status,
    attempt, attempt_token, not_before, claimed_at, claimed_epoch, pushed_at, started_at, last_beat_at,
    cancel_requested_at, cancel_reason, reason, past_attempts,
    null::timestamptz as finished_at, null::text as skip_reason, null::int as exit_code, ''::text as signal,
    null::bigint as duration_ms, ''::text as output_tail, null::uuid as window_id
  from run
  union all
  select org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification, source,
    scheduled_for, window_start, window_end, due_at, created_at, expires_at, timeout_ms, max_attempts, retry_of, status,
    attempt, attempt_token, not_before, claimed_at, claimed_epoch, pushed_at, started_at, last_beat_at,
    cancel_requested_at, cancel_reason, reason, past_attempts,
    finished_at, skip_reason, exit_code, signal, duration_ms, output_tail, window_id
  from run_finished;

-- The stored results.
create table "window" (
  org_id text not null,
  id uuid not null default uuid_v7(),
  watcher_id uuid not null,
  run_id uuid not null,
  window_start timestamptz not null,
  window_end timestamptz not null,
  model_used text not null,
  extracted_data jsonb not null,
  created_at timestamptz not null default now(),
  primary key (org_id, id),
  -- R5: one result per run.
  unique (org_id, run_id),
  check (window_start < window_end)
);
-- windows.list
create index window_watcher on "window" (org_id, watcher_id, id desc);

-- The org's append-only log. `seq` rises in the order of commits within an org: writers hold the
-- org's advisory lock from the insert to the commit (events.append), so a reader that resumes after
-- a seq misses nothing.
create table event (
  org_id text not null,
  seq bigint generated always as identity,
  at timestamptz not null default now(),
  kind text not null,
  actor text not null,
  run_id uuid,
  watcher_id uuid,
  device_id uuid,
  data jsonb not null default '{}',
  primary key (org_id, seq)
);
-- events.list for a run
create index event_run on event (org_id, run_id, seq) where run_id is not null;
-- retention
create index event_age on event using brin (at);
