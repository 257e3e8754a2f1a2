-- Orgs, people, devices and their credentials. Keys lead with org_id so that the tables can be
-- sharded by tenant.

create table org (
  id text primary key,
  name text not null,
  -- Sentinels of one-time provisioning.
  metadata jsonb not null default '{}',
  default_agent_id text,
  created_at timestamptz not null default now(),
  -- The highest seq of the org's events deleted by retention; 0: none. A reader that resumes after a
  -- lower seq has missed events.
  events_deleted_through bigint not null default 0
);
-- Orgs are created and removed across orgs, and not by requests within an org.
alter table org enable row level security;
alter table org force row level security;
create policy tenant on org to pinion_server
  using (id = (select current_setting('pinion.org', true)))
  with check (id = (select current_setting('pinion.org', true)));
create policy every_tenant on org to pinion_scheduler using (true) with check (true);
grant select, update on org to pinion_server;
grant select, insert, update, delete on org to pinion_scheduler;

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
call protect_tenant_table('member');

-- A person may be in several orgs; a request sees the people of its own org (member has its own
-- policy).
alter table "user" enable row level security;
alter table "user" force row level security;
create policy tenant on "user" for select to pinion_server using (id in (select user_id from member));
create policy every_tenant on "user" to pinion_scheduler using (true) with check (true);
grant select on "user" to pinion_server;
grant select, insert, update, delete on "user" to pinion_scheduler;

create table device (
  org_id text not null references org on delete cascade,
  id uuid not null default uuid_v7(),
  owner_id uuid references "user",
  install_id text not null,
  os text not null,
  label text not null,
  app_version text not null default '',
  agent_kinds text[] not null default '{}',
  capabilities text[] not null default '{}',
  max_concurrency int not null default 1 check (max_concurrency between 1 and 64),
  created_at timestamptz not null default now(),
  -- Fleet workers: devices without an owner, connected by a service's token, which take unpinned
  -- runs.
  is_worker boolean not null default false,
  -- The service token of the worker's latest hello. No foreign key: the worker's row outlives a
  -- deleted token.
  token_id uuid,
  -- The problem of the device's configuration file; while set, the previous configuration is in
  -- force.
  config_problem text not null default '',
  -- The machine of the last opened session: {machineHash, bootHash, hostName}; see
  -- devices.isOtherMachine.
  machine jsonb not null default '{}',
  -- Another machine, refused because of a copy of the device's identity: {hostName, seenAt}.
  duplicate jsonb,
  -- Executors and workspaces in the device's last hello: JSON of ExecutorInfo and WorkspaceInfo.
  executors jsonb not null default '[]',
  workspaces jsonb not null default '[]',
  -- Labels given to a device by people; the device's own reports are in its other columns
  -- (src/values/labels.ts).
  labels text[] not null default '{}',
  -- JSON of UpgradeInfo from the last hello; null: the daemon did not say.
  upgrade jsonb,
  -- [{from, to}] of a device, oldest first, the latest 20: written when a session opens after an absence beyond the TTL.
  absences jsonb not null default '[]',
  primary key (org_id, id),
  unique (org_id, install_id),
  constraint device_worker_check check (is_worker = (token_id is not null) and not (is_worker and owner_id is not null))
);
-- workers.enter, presence.locateWorkers, workers.findFleet, workers.removeAway
create index device_worker on device (org_id) where is_worker;
call protect_tenant_table('device');

-- A person's deleted devices: their owner may still read the output of their runs. A fleet worker
-- leaves no row.
create table device_past (
  org_id text not null references org on delete cascade,
  device_id uuid not null,
  label text not null,
  -- Null: enrolled by a service.
  owner_id uuid,
  deleted_at timestamptz not null default now(),
  primary key (org_id, device_id)
);
call protect_tenant_table('device_past');

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
  -- A session is named by its epoch and a random id. The epoch alone is not enough: a failover to a
  -- standby that lags resets the epoch, and two sessions of a device then have the same epoch.
  session_id uuid not null default gen_random_uuid(),
  primary key (org_id, device_id),
  foreign key (org_id, device_id) references device on delete cascade
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
call protect_tenant_table('presence');

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
  -- The time of the rotation: a token has at most one successor, otherwise several successors would
  -- rotate for ever.
  rotated_at timestamptz,
  -- The token's creator; null: Pinion itself, or a service.
  creator_id uuid references "user" on delete set null,
  -- The token's predecessor in a rotation, so that a worker's new token is recognized as the
  -- successor.
  predecessor_id uuid,
  -- A service that may use every device. Existing services keep their rights.
  all_devices boolean not null default false,
  primary key (org_id, id),
  foreign key (org_id, device_id) references device on delete cascade,
  check ((kind = 'dev') = (device_id is not null))
);
call protect_tenant_table('token');

create table join_code (
  org_id text not null references org on delete cascade,
  sha256 bytea primary key,
  user_id uuid references "user" on delete cascade,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  used_at timestamptz,
  -- The maker's token of the code, which limits the code's rights. Null: unknown from an older
  -- version.
  token_id uuid,
  foreign key (org_id, token_id) references token on delete cascade
);
call protect_tenant_table('join_code');

-- The rights on a device that its owner grants to others.
create table device_grant (
  org_id text not null references org on delete cascade,
  id uuid not null default uuid_v7(),
  device_id uuid not null,
  permission text not null check (permission in ('use', 'manage', 'read')),
  -- The grantee: a member, a service by its token, or, with neither, every member.
  user_id uuid,
  token_id uuid,
  -- As in events.
  granted_by text not null,
  created_at timestamptz not null default now(),
  first_used_at timestamptz,
  primary key (org_id, id),
  foreign key (org_id, device_id) references device (org_id, id) on delete cascade,
  foreign key (org_id, user_id) references member (org_id, user_id) on delete cascade,
  foreign key (org_id, token_id) references token (org_id, id) on delete cascade,
  check (user_id is null or token_id is null)
);
-- No duplicates; grants.standings and grants.list
create unique index device_grant_one on device_grant
  (org_id, device_id, permission, coalesce(user_id, token_id, '00000000-0000-0000-0000-000000000000'));
-- The foreign keys, and grants.inherit
create index device_grant_user on device_grant (org_id, user_id) where user_id is not null;
create index device_grant_token on device_grant (org_id, token_id) where token_id is not null;
call protect_tenant_table('device_grant');

-- Signed-in browsers: each has a token of its own, whose secret is in its cookie, and the source of
-- the sign-in.
create table sign_in (
  org_id text not null references org on delete cascade,
  token_id uuid not null,
  method text not null check (method in ('link', 'token', 'oidc')),
  -- The token that made the sign-in or its link, and ends it. Null: made by a provider.
  maker_id uuid,
  address text not null,
  user_agent text not null,
  primary key (org_id, token_id),
  foreign key (org_id, token_id) references token on delete cascade
);
-- tokens.revoke, tokens.rotate
create index sign_in_maker on sign_in (org_id, maker_id);
call protect_tenant_table('sign_in');

-- Links, logins of commands and visits at a provider, before the person is known: of no tenant, so
-- not for requests.
create table sign_in_code (
  sha256 bytea primary key,
  kind text not null check (kind in ('link', 'login', 'oidc')),
  -- For a login: the code that a person compares and types.
  user_code text unique,
  address text not null,
  data jsonb not null,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  used_at timestamptz
);
-- signInCodes.create: the number of open codes of an address
create index sign_in_code_address on sign_in_code (address, created_at);
grant select, insert, update, delete on sign_in_code to pinion_scheduler;

-- A provider's identities: the issuer and its subject, which is no email address.
create table user_identity (
  issuer text not null,
  subject text not null,
  user_id uuid not null references "user" on delete cascade,
  created_at timestamptz not null default now(),
  primary key (issuer, subject)
);
create index user_identity_user on user_identity (user_id);
grant select, insert, update, delete on user_identity to pinion_scheduler;

-- Writes with a request_id, and their results, so that a repeat within a day creates nothing.
create table request (
  org_id text not null references org on delete cascade,
  -- As in event.actor: request ids belong to their callers.
  actor text not null,
  rpc text not null,
  id text not null,
  -- The ids that a repeat needs; never a secret. Null only during the creation.
  made jsonb,
  created_at timestamptz not null default now(),
  primary key (org_id, actor, rpc, id)
);
-- retention.deleteOld
create index request_age on request using brin (created_at);
call protect_tenant_table('request');
