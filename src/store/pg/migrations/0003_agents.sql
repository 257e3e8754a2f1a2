-- Agents, and the chat platforms that reach them.

create table agent (
  org_id text not null references org on delete cascade,
  id text not null,
  name text not null,
  owner_id uuid references "user",
  version int not null default 1,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  -- The device that takes the agent's turns; null: the org's fleet workers.
  device_id uuid,
  -- The reason why no device takes the agent's turns: the pinned device was removed. Empty: turns are
  -- taken. The next decision about the pin clears the reason.
  no_executor_reason text not null default '',
  primary key (org_id, id),
  foreign key (org_id, device_id) references device on delete set null (device_id)
);
-- The foreign key, when a device is deleted.
create index agent_device on agent (org_id, device_id) where device_id is not null;
call protect_tenant_table('agent');

-- The versions of agents. Runs refer to a version, so later edits do not affect them (R4).
create table agent_revision (
  org_id text not null,
  agent_id text not null,
  version int not null,
  name text not null,
  settings jsonb not null,
  created_at timestamptz not null default now(),
  primary key (org_id, agent_id, version)
);
call protect_tenant_table('agent_revision');

-- Chat platforms of agents.
create table platform (
  org_id text not null,
  stable_id text not null,
  agent_id text not null,
  kind text not null,
  -- The readable settings, by key.
  config jsonb not null default '{}',
  -- By key: "enc:v1:…" (src/secrets.ts), or "secret://NAME".
  secrets jsonb not null default '{}',
  version int not null default 1,
  status text not null check (status in ('stopped', 'starting', 'running', 'failed')),
  status_reason text not null default '',
  -- Grows with every start and stop. A start's outcome is written only under its own epoch.
  epoch bigint not null default 0,
  -- While starting: the time from which the start counts as failed, even without a report (R7).
  start_deadline_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (org_id, stable_id),
  foreign key (org_id, agent_id) references agent,
  check ((status = 'starting') = (start_deadline_at is not null))
);
-- platforms.list for an agent, platforms.removeAllOfAgent
create index platform_agent on platform (org_id, agent_id, stable_id);
-- platform-leases.takeAbandoned
create index platform_running on platform (org_id, stable_id) where status = 'running';
call protect_tenant_table('platform');

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
-- retention.deleteOld
create index platform_state_expired on platform_state (expires_at) where expires_at is not null;
call protect_tenant_table('platform_state');

-- Replies owed to chats: a row is written in the transaction that records the message's turn, and
-- stays open until the platform has the whole reply.
create table platform_reply (
  org_id text not null,
  turn_id uuid not null,
  stable_id text not null,
  -- The place on the platform.
  thread_id text not null,
  chat_id text not null,
  sender_id text not null,
  state text not null default 'open' check (state in ('open', 'sent', 'dead')),
  -- The platform's id of the message that holds the reply; null: none is posted yet.
  post_id text,
  -- Messages of a long reply that are complete on the platform.
  parts_sent int not null default 0,
  attempts int not null default 0,
  next_at timestamptz not null default now(),
  last_error text not null default '',
  created_at timestamptz not null default now(),
  ended_at timestamptz,
  primary key (org_id, turn_id),
  foreign key (org_id, stable_id) references platform on delete cascade,
  check ((state = 'open') = (ended_at is null))
) with (fillfactor = 80);
-- platform-replies.listDue
create index platform_reply_open on platform_reply (org_id, stable_id, next_at) where state = 'open';
-- retention.deleteOld
create index platform_reply_age on platform_reply using brin (created_at);
call protect_tenant_table('platform_reply');

-- Questions of agents that a platform shows with buttons. A button's value is the reference, which
-- names the question to the replica that hears the press.
create table platform_question (
  org_id text not null,
  ref text not null,
  stable_id text not null,
  turn_id uuid not null,
  attempt_token text not null,
  question_id text not null,
  -- The one person who may press.
  sender_id text not null,
  thread_id text not null,
  -- The platform's id of the message; null: not posted yet.
  post_id text,
  -- The platform's id of the message that answers; null: a button does, or nothing yet.
  message_id text,
  -- The message shows the question's end.
  is_closed boolean not null default false,
  created_at timestamptz not null default now(),
  primary key (org_id, ref),
  unique (org_id, turn_id, attempt_token, question_id),
  foreign key (org_id, stable_id) references platform on delete cascade
);
-- the foreign key; the question that a message may answer
create index platform_question_thread on platform_question (org_id, stable_id, thread_id);
-- retention.deleteOld
create index platform_question_age on platform_question using brin (created_at);
call protect_tenant_table('platform_question');
