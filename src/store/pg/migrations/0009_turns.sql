-- Turns of conversations (DESIGN 10). Written by src/store/work/turns.ts, turn-attempts.ts and turn-settlements.ts.

-- The device that takes the agent's turns; null: the org's fleet workers do.
alter table agent add column device_id uuid;
alter table agent add foreign key (org_id, device_id) references device on delete set null (device_id);
-- The foreign key, when a device is deleted.
create index agent_device on agent (org_id, device_id) where device_id is not null;

-- The fences of leases. One sequence for all: a conversation that is deleted and begun anew never repeats one.
create sequence conversation_epoch;
grant usage on sequence conversation_epoch to pinion_server, pinion_scheduler;

-- What a conversation remembers, and which turn has it now: a lease that is a row, and no connection.
create table conversation (
  org_id text not null references org on delete cascade,
  agent_id text not null,
  -- "<agent>_<user>_<org>", or "<agent>_watcher_<watcher>_run_<run>".
  id text not null,
  snapshot bytea,
  -- Grows by one with every snapshot that is stored. 0: there is none yet.
  snapshot_version bigint not null default 0,
  -- Under which the holder writes; a reply under any other one is refused.
  lease_epoch bigint not null default 0,
  lease_turn_id uuid,
  lease_device_id uuid,
  lease_expires_at timestamptz,
  created_at timestamptz not null default now(),
  last_turn_at timestamptz not null default now(),
  primary key (org_id, agent_id, id),
  check ((lease_turn_id is null) = (lease_expires_at is null))
) with (fillfactor = 70);
-- conversations.list for any agent
create index conversation_id on conversation (org_id, id);
call protect_tenant_table('conversation');

-- Every message that became a turn, once: whoever arms a turn writes its message in the same transaction.
create table turn_message (
  org_id text not null references org on delete cascade,
  agent_id text not null,
  -- Empty for a turn without a conversation.
  conversation_id text not null,
  message_id text not null,
  turn_id uuid not null,
  -- Of the input, so that a repeat with another one is told from a repeat.
  input_sha256 bytea not null,
  created_at timestamptz not null default now(),
  primary key (org_id, agent_id, conversation_id, message_id)
);
-- retention.deleteOld
create index turn_message_age on turn_message using brin (created_at);
call protect_tenant_table('turn_message');

-- The turns that live. A row is the marker that the turn owes its one terminal reply: it goes in the transaction that
-- writes the turn into turn_finished, so this table stays small. No index mentions what changes between its claim and its end: heartbeats are
-- HOT updates.
create table turn (
  org_id text not null references org on delete cascade,
  id uuid not null default uuid_v7(),
  -- The order of a conversation's turns.
  seq bigint generated always as identity,
  agent_id text not null,
  agent_version int not null,
  conversation_id text not null,
  message_id text not null,
  -- The run that the turn is about, if the caller named one.
  run_id uuid,
  -- The device that the agent is pinned to; null: a fleet worker takes it.
  device_id uuid,
  -- Who may claim it: that device, or all fleet workers of the org (nil).
  pool_id uuid not null generated always as (coalesce(device_id, '00000000-0000-0000-0000-000000000000')) stored,
  agent_kind text not null,
  input text not null,
  -- It takes the conversation's lease, reads its snapshot and writes the next one.
  is_gated boolean not null,
  timeout_ms bigint not null,
  created_at timestamptz not null default now(),
  start_deadline_at timestamptz not null,
  status text not null default 'pending' check (status in ('pending', 'claimed', 'running')),
  attempt int not null default 0,
  -- The fence: set by the claim, unguessable, and in every message about the attempt. Null while pending.
  attempt_token uuid,
  not_before timestamptz,
  -- Who claimed it, and by which session.
  holder_id uuid,
  claimed_epoch bigint,
  claimed_at timestamptz,
  started_at timestamptz,
  last_beat_at timestamptz,
  -- When it is lost unless its holder beats.
  deadline_at timestamptz,
  -- When it is over, however its holder beats.
  expires_at timestamptz,
  -- What it read of its conversation, and under which lease it may write.
  lease_epoch bigint,
  snapshot_version bigint,
  cancel_requested_at timestamptz,
  cancel_reason text,
  -- Why an earlier claim was withdrawn.
  reason text not null default '',
  primary key (org_id, id),
  check ((status = 'pending') = (attempt_token is null)),
  check ((attempt_token is null) = (deadline_at is null)),
  check (not is_gated or conversation_id <> '')
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
-- turnAttempts.claim
create index turn_pool on turn (org_id, pool_id, seq);
-- turnAttempts.claim (the turns before one), conversations.get, turns.list
create index turn_conversation on turn (org_id, agent_id, conversation_id, seq);
-- turnAttempts.lockActiveOfHolder and listClaimed, turnSettlements.lockOfSessions: set once, by the claim
create index turn_holder on turn (org_id, holder_id) where holder_id is not null;
call protect_tenant_table('turn');

-- The turns that have had their reply. Dropped by partition when they are old.
create table turn_finished (
  org_id text not null,
  id uuid not null,
  agent_id text not null,
  agent_version int not null,
  conversation_id text not null,
  message_id text not null,
  run_id uuid,
  device_id uuid,
  agent_kind text not null,
  input text not null,
  is_gated boolean not null,
  timeout_ms bigint not null,
  created_at timestamptz not null,
  start_deadline_at timestamptz not null,
  status text not null check (status in ('completed', 'failed', 'timeout', 'cancelled')),
  attempt int not null,
  attempt_token uuid,
  holder_id uuid,
  claimed_at timestamptz,
  started_at timestamptz,
  last_beat_at timestamptz,
  cancel_requested_at timestamptz,
  reason text not null,
  finished_at timestamptz not null default now(),
  -- The same message may be sent again under another id: not the agent failed, but what it ran on.
  is_retryable boolean not null,
  -- The holder itself reported the end, under attempt_token; otherwise Pinion ended it.
  is_reported boolean not null,
  reply text not null,
  is_reply_truncated boolean not null,
  exit_code int,
  signal text not null,
  duration_ms bigint,
  -- The version of the snapshot that it left; null if it left none.
  snapshot_version bigint,
  primary key (org_id, id, finished_at)
) partition by range (finished_at);
-- turns.list of a conversation, conversations.remove
create index turn_finished_conversation on turn_finished (org_id, agent_id, conversation_id, id desc);
-- Catches what no daily partition covers, so that no end is ever refused.
create table turn_finished_default partition of turn_finished default;
-- Its partitions are granted to nobody: requests reach them through it alone, and so through its policies.
call protect_tenant_table('turn_finished');

-- All turns, for those who read them.
create view turn_all with (security_invoker = true) as
  select org_id, id, agent_id, agent_version, conversation_id, message_id, run_id, device_id, agent_kind, input, is_gated,
    timeout_ms, created_at, start_deadline_at, status, attempt, holder_id, claimed_at, started_at, last_beat_at,
    deadline_at, expires_at, cancel_requested_at, reason,
    null::timestamptz as finished_at, false as is_retryable, ''::text as reply, false as is_reply_truncated,
    null::int as exit_code, ''::text as signal, null::bigint as duration_ms, null::bigint as snapshot_version
  from turn
  union all
  select org_id, id, agent_id, agent_version, conversation_id, message_id, run_id, device_id, agent_kind, input, is_gated,
    timeout_ms, created_at, start_deadline_at, status, attempt, holder_id, claimed_at, started_at, last_beat_at,
    null::timestamptz, null::timestamptz, cancel_requested_at, reason,
    finished_at, is_retryable, reply, is_reply_truncated, exit_code, signal, duration_ms, snapshot_version
  from turn_finished;
grant select on turn_all to pinion_server, pinion_scheduler;
