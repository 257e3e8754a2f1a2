-- Destinations of results, and the outbox of deliveries to them (DESIGN 15).

create table destination (
  org_id text not null references org on delete cascade,
  id uuid not null default uuid_v7(),
  slug text not null,
  name text not null,
  kind text not null check (kind in ('webhook', 'slack', 'email')),
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

-- [{"to": slug, "when": …}] of the watcher's version, copied here for the ends of its runs; null:
-- no notices.
alter table watcher add column notify jsonb;
