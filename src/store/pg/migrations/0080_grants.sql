-- The owners of devices (DESIGN 13; docs/security.md).

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

-- The actor of the watcher's last edit, or of its resumption after a revoked grant: the watcher
-- uses its device under the actor's right. Empty: Pinion's own, or unknown from an older version.
alter table watcher add column sponsor text not null default '';

-- A service that may use every device. Existing services keep their rights.
alter table token add column all_devices boolean not null default false;
update token set all_devices = true where kind = 'svc';
