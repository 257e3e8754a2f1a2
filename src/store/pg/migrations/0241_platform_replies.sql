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
call protect_tenant_table('platform_reply');
-- platform-replies.listDue
create index platform_reply_open on platform_reply (org_id, stable_id, next_at) where state = 'open';
-- retention.deleteOld
create index platform_reply_age on platform_reply using brin (created_at);
