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
  -- The message shows the question's end.
  is_closed boolean not null default false,
  created_at timestamptz not null default now(),
  primary key (org_id, ref),
  unique (org_id, turn_id, attempt_token, question_id),
  foreign key (org_id, stable_id) references platform on delete cascade
);
call protect_tenant_table('platform_question');
-- the foreign key
create index platform_question_platform on platform_question (org_id, stable_id);
-- retention.deleteOld
create index platform_question_age on platform_question using brin (created_at);
