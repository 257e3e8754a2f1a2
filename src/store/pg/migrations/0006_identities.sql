-- The source of an event's call: {address, token_id, user_agent, request_id}. Null: Pinion's own
-- event, without a call.
alter table event add column source jsonb;

-- The token's creator; null: Pinion itself, a service, or unknown from an older version.
alter table token add column creator_id uuid references "user" on delete set null;

-- The maker's token of the code, which limits the code's rights. Null: unknown from an older
-- version.
alter table join_code add column token_id uuid;
alter table join_code add foreign key (org_id, token_id) references token on delete cascade;

-- A member's token has no scope above the person's role.
update token t
set scopes = array(select distinct s from unnest(array_remove(t.scopes, 'admin') || array['read', 'write']) as s order by s)
from member m
where m.org_id = t.org_id and m.user_id = t.user_id and m.role = 'member'
  and t.kind = 'pat' and 'admin' = any(t.scopes);

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

-- The table replaces the watcher's request_id.
alter table watcher drop constraint watcher_org_id_request_id_key;
alter table watcher drop column request_id;
