-- External starts of runs (DESIGN 15): inputs, hooks, chains.

alter table run drop constraint run_source_check;
alter table run add constraint run_source_check check (source in ('scheduled', 'manual', 'backfill', 'hook', 'after'));

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

-- A start that waits for the end of the active run is stored among the waiting slots, under its
-- time of arrival.
alter table backlog add column run_id uuid;
alter table backlog drop constraint backlog_source_check;
alter table backlog add constraint backlog_source_check
  check (source in ('scheduled', 'backfill', 'manual', 'hook', 'after'));
alter table backlog add constraint backlog_start_check check ((run_id is null) = (source in ('scheduled', 'backfill')));

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

-- The addresses where external deliveries start a watcher.
create table hook (
  org_id text not null,
  id uuid not null default gen_random_uuid(),
  slug text not null,
  watcher_id uuid not null,
  kind text not null check (kind in ('standard', 'github', 'gitlab', 'slack', 'bearer', 'secret_url')),
  filter text not null default '',
  mapping text not null default '',
  rate_per_minute int not null default 60,
  is_disabled boolean not null default false,
  -- Sealed; of the old secret, until its end.
  secret text not null,
  old_secret text,
  old_secret_until timestamptz,
  version int not null default 1,
  -- A token bucket: the number of deliveries allowed at the time.
  rate_left float8 not null default 0,
  rate_at timestamptz not null default '-infinity',
  last_delivery_at timestamptz,
  last_refused_at timestamptz,
  last_refused_reason text not null default '',
  created_by text not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (org_id, id),
  unique (org_id, slug),
  foreign key (org_id, watcher_id) references watcher (org_id, id) on delete cascade
) with (fillfactor = 80);
-- hooks.findAddressed: senders do not know the org
create index hook_id on hook (id);
-- hooks.list, and the foreign key
create index hook_watcher on hook (org_id, watcher_id);
call protect_tenant_table('hook');

-- Received deliveries of hooks. Bodies are kept of the last 100 of each hook, rows as long as
-- senders may send again.
create table hook_delivery (
  org_id text not null,
  id uuid not null default uuid_v7(),
  hook_id uuid not null,
  -- The sender's id; null: none.
  delivery_key text,
  received_at timestamptz not null default now(),
  event text not null default '',
  outcome text not null
    check (outcome in ('started', 'already_queued', 'queued', 'skipped', 'filtered', 'failed')),
  run_id uuid,
  reason text not null default '',
  duplicates int not null default 0,
  replay_of uuid,
  body_bytes int not null,
  body jsonb,
  headers jsonb not null default '{}',
  primary key (org_id, id),
  foreign key (org_id, hook_id) references hook (org_id, id) on delete cascade
) with (fillfactor = 80);
-- Once, on whatever replica, and however often received.
create unique index hook_delivery_key on hook_delivery (org_id, hook_id, delivery_key) where delivery_key is not null;
-- hooks.listDeliveries, hooks.insertDelivery
create index hook_delivery_hook on hook_delivery (org_id, hook_id, id desc);
-- retention.deleteOld
create index hook_delivery_age on hook_delivery using brin (received_at);
call protect_tenant_table('hook_delivery');
