-- From where an event's call came: {address, token_id, user_agent, request_id}. Null: no call, Pinion did it by itself.
alter table event add column source jsonb;

-- Who made the token; null: Pinion itself, a service, or a version that did not note it.
alter table token add column creator_id uuid references "user" on delete set null;

-- The token with which the code was made: it is no better than that. Null: made before this was noted.
alter table join_code add column token_id uuid;
alter table join_code add foreign key (org_id, token_id) references token on delete cascade;

-- A member's token has no scope above the person's role.
update token t
set scopes = array(select distinct s from unnest(array_remove(t.scopes, 'admin') || array['read', 'write']) as s order by s)
from member m
where m.org_id = t.org_id and m.user_id = t.user_id and m.role = 'member'
  and t.kind = 'pat' and 'admin' = any(t.scopes);

-- Writes that carried a request_id, and what they made, so that a repeat within a day makes nothing.
create table request (
  org_id text not null references org on delete cascade,
  -- As in event.actor: a request_id is its caller's own.
  actor text not null,
  rpc text not null,
  id text not null,
  -- What a repeat has to know of what was made; never a secret. Null only while it is being made.
  made jsonb,
  created_at timestamptz not null default now(),
  primary key (org_id, actor, rpc, id)
);
-- retention.deleteOld
create index request_age on request using brin (created_at);
call protect_tenant_table('request');

-- What a watcher's request_id was for is in there now.
alter table watcher drop constraint watcher_org_id_request_id_key;
alter table watcher drop column request_id;
