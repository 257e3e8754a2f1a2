-- Watchers, the positions of their schedules, and what waits for a start.

create table watcher (
  org_id text not null references org on delete cascade,
  id uuid not null default uuid_v7(),
  slug text not null,
  version int not null default 1,
  name text not null,
  agent_id text not null,
  device_id uuid,
  agent_kind text not null default '',
  schedule text,
  time_zone text not null default 'UTC',
  overlap text not null default 'skip' check (overlap in ('skip', 'queue_one', 'queue_all')),
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
  last_fired_at timestamptz,
  -- End of the last stored window: the next run's window starts here. Null before the first.
  window_cursor_at timestamptz,
  last_window_id uuid,
  consecutive_failures int not null default 0,
  backoff_until timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  -- The actor of the watcher's last edit, or of its resumption after a revoked grant: the watcher
  -- uses its device under the actor's right. Empty: Pinion's own.
  sponsor text not null default '',
  -- The budget in the watcher's version, copied here for the passes: {"tokensMax": …,
  -- "costMicrosMax": …}.
  day_budget jsonb,
  -- The workspace in the watcher's version, copied here for the passes; null: none.
  workspace text,
  -- The end of the last window's run, which leads to its partition.
  last_window_at timestamptz,
  -- [{"to": slug, "when": …}] of the watcher's version, copied here for the ends of its runs; null:
  -- no notices.
  notify jsonb,
  -- {selector, spread, group: {name, max, per}, priority, rate: {key, perMinute}}; null: the runs
  -- need no placing.
  placement jsonb,
  primary key (org_id, id),
  unique (org_id, slug),
  foreign key (org_id, device_id) references device
) with (fillfactor = 70);
-- watchers.list for a device, devices.remove
create index watcher_device on watcher (org_id, device_id) where device_id is not null;
call protect_tenant_table('watcher');

-- The versions of watchers (R4).
create table watcher_revision (
  org_id text not null,
  watcher_id uuid not null,
  version int not null,
  name text not null,
  prompt text not null,
  extraction_schema jsonb,
  -- Workspace, budgets, question policy and continue mode of a version: JSON of the fields of
  -- WatcherSpec.
  agent_work jsonb not null default '{}',
  -- The time of the version.
  created_at timestamptz not null default now(),
  primary key (org_id, watcher_id, version),
  foreign key (org_id, watcher_id) references watcher on delete cascade
);
call protect_tenant_table('watcher_revision');

-- The watchers whose ends start a watcher. The condition is in the watcher's revision.
create table watcher_after (
  org_id text not null,
  watcher_id uuid not null,
  after_id uuid not null,
  primary key (org_id, watcher_id, after_id),
  foreign key (org_id, watcher_id) references watcher (org_id, id) on delete cascade,
  foreign key (org_id, after_id) references watcher (org_id, id) on delete cascade,
  check (watcher_id <> after_id)
);
-- settlements.settle, chains.listFollowers
create index watcher_after_other on watcher_after (org_id, after_id);
call protect_tenant_table('watcher_after');

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
-- Serves schedules.lockDue, lockAhead and lookAhead.
create index schedule_due on schedule_position (next_due_at) where next_due_at is not null;
call protect_tenant_table('schedule_position');

-- Every slot with a row, once (R2): the writer of a scheduled run writes its slot in the same
-- statement.
create table slot (
  org_id text not null,
  watcher_id uuid not null,
  scheduled_for timestamptz not null,
  run_id uuid not null,
  -- A slot is kept by the time of its recording: by its own time, an old slot recorded by a backfill
  -- would be deleted at once, and a repeated backfill would run the slot again.
  created_at timestamptz not null default now(),
  primary key (org_id, watcher_id, scheduled_for)
);
-- retention.deleteOld
create index slot_age on slot using brin (created_at);
call protect_tenant_table('slot');

-- Slots that wait for the end of the watcher's active run: the latest slot of a queue_one watcher,
-- and backfilled slots.
create table backlog (
  org_id text not null,
  watcher_id uuid not null,
  scheduled_for timestamptz not null,
  source text not null check (source in ('scheduled', 'backfill', 'manual', 'hook', 'after')),
  -- A start that waits for the end of the active run is stored among the waiting slots, under its
  -- time of arrival.
  run_id uuid,
  primary key (org_id, watcher_id, scheduled_for),
  foreign key (org_id, watcher_id) references watcher on delete cascade,
  constraint backlog_start_check check ((run_id is null) = (source in ('scheduled', 'backfill')))
);
call protect_tenant_table('backlog');

-- The input and origin of a run without a slot; written with the run, or before it while the start
-- waits.
create table run_start (
  org_id text not null references org on delete cascade,
  run_id uuid not null,
  watcher_id uuid not null,
  -- Null: started without an input. JSON's own null is the jsonb null.
  input jsonb,
  -- "user:<id>" and the like, as in events.
  actor text not null,
  hook_id uuid,
  hook_slug text not null default '',
  hook_delivery_id uuid,
  after_run_id uuid,
  after_watcher_slug text not null default '',
  -- Number of earlier runs in the chain.
  depth int not null default 0,
  -- A retry copies the start of the repeated run.
  is_retry boolean not null default false,
  created_at timestamptz not null default now(),
  primary key (org_id, run_id)
);
-- The end of a run starts each of its followers once, even if processed repeatedly.
create unique index run_start_after on run_start (org_id, after_run_id, watcher_id)
  where after_run_id is not null and not is_retry;
-- retention.deleteOld
create index run_start_age on run_start using brin (created_at);
call protect_tenant_table('run_start');

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
-- retention.deleteOld
create index rate_key_age on rate_key using brin (touched_at);
call protect_tenant_table('rate_key');
