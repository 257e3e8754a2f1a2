-- Turns of conversations.

-- The fences of leases. A sequence for all conversations: a conversation deleted and begun anew
-- never repeats an epoch.
create sequence conversation_epoch;
grant usage on sequence conversation_epoch to pinion_server, pinion_scheduler;

-- The memory of a conversation, and its lease: a row, not a connection, names the turn with the
-- lease.
create table conversation (
  org_id text not null references org on delete cascade,
  agent_id text not null,
  -- "<agent>_<user>_<org>", or "<agent>_watcher_<watcher>_run_<run>".
  id text not null,
  snapshot bytea,
  -- Grows by 1 with every stored snapshot. 0: no snapshot yet.
  snapshot_version bigint not null default 0,
  -- The holder writes under the epoch; replies under any other epoch are refused.
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

-- Every message of a turn, once: arming a turn writes its message in the same transaction.
create table turn_message (
  org_id text not null references org on delete cascade,
  agent_id text not null,
  -- Empty for a turn without a conversation.
  conversation_id text not null,
  message_id text not null,
  turn_id uuid not null,
  -- Hash of the input, to tell a repeat from another message with the same id.
  input_sha256 bytea not null,
  created_at timestamptz not null default now(),
  primary key (org_id, agent_id, conversation_id, message_id)
);
-- retention.deleteOld
create index turn_message_age on turn_message using brin (created_at);
call protect_tenant_table('turn_message');

-- Live turns. A row is the marker that the turn owes its one terminal reply: the transaction that
-- writes the turn into turn_finished deletes the row, so the table stays small. No index has a
-- column that changes between claim and end, so heartbeats are HOT updates.
create table turn (
  org_id text not null references org on delete cascade,
  id uuid not null default uuid_v7(),
  -- The order of a conversation's turns.
  seq bigint generated always as identity,
  agent_id text not null,
  agent_version int not null,
  conversation_id text not null,
  message_id text not null,
  -- The run named by the caller as the turn's subject, if any.
  run_id uuid,
  -- The agent's pinned device; null: a fleet worker takes the turn.
  device_id uuid,
  -- The possible claimants: the pinned device, or all fleet workers of the org (nil).
  pool_id uuid not null generated always as (coalesce(device_id, '00000000-0000-0000-0000-000000000000')) stored,
  agent_kind text not null,
  input text not null,
  -- The turn takes the conversation's lease, reads its snapshot and writes the next snapshot.
  is_gated boolean not null,
  timeout_ms bigint not null,
  created_at timestamptz not null default now(),
  start_deadline_at timestamptz not null,
  status text not null default 'pending' check (status in ('pending', 'claimed', 'running')),
  attempt int not null default 0,
  -- The fence: set by the claim, unguessable, and in every message about the attempt. Null while
  -- pending.
  attempt_token uuid,
  not_before timestamptz,
  -- The claiming device, and its session.
  holder_id uuid,
  claimed_epoch bigint,
  claimed_at timestamptz,
  started_at timestamptz,
  last_beat_at timestamptz,
  -- The turn is lost after this time; heartbeats extend the time.
  deadline_at timestamptz,
  -- The turn ends at this time in spite of heartbeats.
  expires_at timestamptz,
  -- The version of the snapshot read, and the lease epoch for writing.
  lease_epoch bigint,
  snapshot_version bigint,
  cancel_requested_at timestamptz,
  cancel_reason text,
  -- The reason of an earlier withdrawn claim.
  reason text not null default '',
  -- [{attempt, token, holder_id, ended_at, reason}], oldest first: withdrawn claims, whose replies
  -- may still come.
  past_attempts jsonb not null default '[]',
  claimed_session uuid,
  -- A turn that continues the session of a run's agent (StartTurn with resume_run_id), on the run's
  -- device.
  agent_session_id text not null default '',
  resume_run_id uuid,
  primary key (org_id, id),
  check ((status = 'pending') = (attempt_token is null)),
  check ((attempt_token is null) = (deadline_at is null)),
  check (not is_gated or conversation_id <> '')
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
-- turnAttempts.claim
create index turn_pool on turn (org_id, pool_id, seq);
-- turnAttempts.claim (the turns before a turn), conversations.get, turns.list
create index turn_conversation on turn (org_id, agent_id, conversation_id, seq);
-- active.lockActive and listClaimed, turnSettlements.lockOfSessions: set once, by the
-- claim
create index turn_holder on turn (org_id, holder_id) where holder_id is not null;
call protect_tenant_table('turn');

-- Ended turns. Old partitions are dropped.
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
  -- The same message may be sent again under another id: the environment failed, and not the agent.
  is_retryable boolean not null,
  -- The holder itself reported the end, under attempt_token; otherwise Pinion ended it.
  is_reported boolean not null,
  reply text not null,
  is_reply_truncated boolean not null,
  exit_code int,
  signal text not null,
  duration_ms bigint,
  -- The version of the snapshot written by the turn; null: none.
  snapshot_version bigint,
  past_attempts jsonb not null default '[]',
  -- The agent's own id of the turn's session, for the next turn.
  agent_session_id text not null default '',
  -- The end of the output of a turn's program that left no reply: shown with the turn, as with a run.
  output_tail text not null default '',
  primary key (org_id, id, finished_at)
) partition by range (finished_at);
-- turns.list of a conversation, conversations.remove
create index turn_finished_conversation on turn_finished (org_id, agent_id, conversation_id, id desc);
-- Takes ends outside of the daily partitions, so that no end is ever refused.
create table turn_finished_default partition of turn_finished default;
-- The partitions are granted to no role: requests reach them through the table alone, and so
-- through its policies.
call protect_tenant_table('turn_finished');

create view turn_all with (security_invoker = true) as
  select org_id, id, agent_id, agent_version, conversation_id, message_id, run_id, device_id, agent_kind, input, is_gated,
    timeout_ms, created_at, start_deadline_at, status, attempt, holder_id, claimed_at, started_at, last_beat_at,
    deadline_at, expires_at, cancel_requested_at, reason,
    null::timestamptz as finished_at, false as is_retryable, ''::text as reply, false as is_reply_truncated,
    null::int as exit_code, ''::text as signal, null::bigint as duration_ms, null::bigint as snapshot_version,
    ''::text as output_tail
  from turn
  union all
  select org_id, id, agent_id, agent_version, conversation_id, message_id, run_id, device_id, agent_kind, input, is_gated,
    timeout_ms, created_at, start_deadline_at, status, attempt, holder_id, claimed_at, started_at, last_beat_at,
    null::timestamptz, null::timestamptz, cancel_requested_at, reason,
    finished_at, is_retryable, reply, is_reply_truncated, exit_code, signal, duration_ms, snapshot_version, output_tail
  from turn_finished;
grant select on turn_all to pinion_server, pinion_scheduler;
