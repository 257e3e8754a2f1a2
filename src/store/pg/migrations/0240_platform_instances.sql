-- The running instance of a chat platform: the replica that has it, and what it says of itself.
-- One replica runs an instance, under a lease with an epoch; the epoch is compared by every write
-- of the instance (P5).
create table platform_instance (
  org_id text not null,
  stable_id text not null,
  -- The start (platform.epoch) that the instance serves.
  start_epoch bigint not null,
  -- Grows with every taking of the lease.
  epoch bigint not null,
  -- Null: no replica has it.
  replica_id uuid,
  lease_until timestamptz,
  -- After a failed taking over: the next try.
  retry_at timestamptz,
  last_in_at timestamptz,
  last_out_at timestamptz,
  last_error text not null default '',
  last_error_at timestamptz,
  primary key (org_id, stable_id),
  foreign key (org_id, stable_id) references platform on delete cascade,
  check ((replica_id is null) = (lease_until is null))
) with (fillfactor = 70);
call protect_tenant_table('platform_instance');

-- platform-leases.takeAbandoned
create index platform_running on platform (org_id, stable_id) where status = 'running';

-- What the adapters of the Chat SDK keep (StateAdapter): cached values, lists, queues, locks and
-- subscriptions, shared by all replicas.
create table platform_state (
  org_id text not null,
  stable_id text not null,
  space text not null check (space in ('value', 'list', 'queue', 'lock', 'subscription')),
  key text not null,
  value jsonb,
  -- A lock's.
  token uuid,
  -- Null: until deleted.
  expires_at timestamptz,
  touched_at timestamptz not null default now(),
  primary key (org_id, stable_id, space, key),
  foreign key (org_id, stable_id) references platform on delete cascade
) with (fillfactor = 70);
call protect_tenant_table('platform_state');
-- retention.deleteOld
create index platform_state_expired on platform_state (expires_at) where expires_at is not null;
