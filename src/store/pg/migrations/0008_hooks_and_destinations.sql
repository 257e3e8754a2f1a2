-- Events from outside, and results that go out.

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

-- Destinations of results, and the outbox of deliveries to them.
create table destination (
  org_id text not null references org on delete cascade,
  id uuid not null default uuid_v7(),
  slug text not null,
  name text not null,
  kind text not null check (kind in ('webhook', 'slack', 'email', 'platform')),
  -- The readable settings: JSON of the kind's message in the proto, without its secrets.
  config jsonb not null default '{}',
  -- By field: "enc:v1:…" (src/secrets.ts), or "secret://NAME".
  secrets jsonb not null default '{}',
  -- The signing secret before the last rotation, and the end of its use beside the new secret.
  past_secret text,
  past_secret_until timestamptz,
  takes_alerts boolean not null default true,
  version int not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  last_delivered_at timestamptz,
  -- The error of the last try, if failed.
  last_error text not null default '',
  primary key (org_id, id),
  unique (org_id, slug)
) with (fillfactor = 70);
call protect_tenant_table('destination');

-- The outbox: a row is written in the transaction of the change it reports, and waits until
-- accepted or given up.
create table delivery (
  org_id text not null,
  id uuid not null default uuid_v7(),
  -- The order of messages to a destination about a watcher.
  seq bigint generated always as identity,
  destination_id uuid not null,
  -- The unit of ordered sending: the watcher, or the row itself for a delivery without a watcher.
  lane uuid not null,
  watcher_id uuid,
  run_id uuid,
  kind text not null,
  -- NotifyWhen in lower case; empty: an alert or a test.
  reason text not null default '',
  -- Facts in no other row: the question's attempt and id, the facts of an alert.
  subject jsonb not null default '{}',
  -- For an alert sent once; null: for any other.
  once_key text,
  state text not null default 'pending' check (state in ('pending', 'delivered', 'dead')),
  attempts int not null default 0,
  next_at timestamptz not null default now(),
  -- The start of the days until the delivery is given up: its creation, or its replay.
  since timestamptz not null default now(),
  -- The running try: its fence, and the end of its lease.
  lease_token uuid,
  lease_until timestamptz,
  last_status int not null default 0,
  last_error text not null default '',
  created_at timestamptz not null default now(),
  ended_at timestamptz,
  primary key (org_id, id),
  foreign key (org_id, destination_id) references destination on delete cascade,
  check ((state = 'pending') = (ended_at is null))
) with (fillfactor = 70);
-- deliveries.claim: the head of each lane
create index delivery_lane on delivery (org_id, destination_id, lane, seq) where state = 'pending';
-- deliveries.list, destinations.counts, and the foreign key
create index delivery_destination on delivery (org_id, destination_id, state, id desc);
-- deliveries.list for a run
create index delivery_run on delivery (org_id, run_id, id desc) where run_id is not null;
-- deliveries.alert
create unique index delivery_once on delivery (org_id, destination_id, once_key) where once_key is not null;
-- retention.deleteOld
create index delivery_age on delivery using brin (created_at);
call protect_tenant_table('delivery');
