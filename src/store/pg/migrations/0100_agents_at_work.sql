-- Watchers' requests to agents at work, and agents' reports (DESIGN 14).

-- Workspace, budgets, question policy and continue mode of a version: JSON of the fields of
-- WatcherSpec.
alter table watcher_revision add column agent_work jsonb not null default '{}';

-- Executors and workspaces in the device's last hello: JSON of ExecutorInfo and WorkspaceInfo.
alter table device add column executors jsonb not null default '[]';
alter table device add column workspaces jsonb not null default '[]';

-- The report of an ended run's agent beside its output. A run without a report has no row. The
-- answer of a completed run is in its window; "result" and "structured" are for runs without a
-- window.
create table run_report (
  org_id text not null,
  run_id uuid not null,
  finished_at timestamptz not null default now(),
  attempt_token uuid not null,
  result text not null default '',
  structured jsonb,
  -- Names of AttentionReason, as in the proto without their prefix, in lower case.
  attention text[] not null default '{}',
  -- The agent's own id of its session; empty: none is kept.
  session_id text not null default '',
  -- usage, model_used, stop_reason, denials, notes, executor, kept_workspace, workspace,
  -- is_result_truncated: JSON of the fields of Completion.
  facts jsonb not null default '{}',
  -- A protobuf Transcript.
  transcript bytea,
  primary key (org_id, run_id, finished_at)
) partition by range (finished_at);
create table run_report_default partition of run_report default;
-- runs.list for runs with reasons for attention
create index run_report_attention on run_report (org_id, run_id desc) where attention <> '{}';
call protect_tenant_table('run_report');

-- The consumption of runs, summed for each day (UTC), watcher, agent and device.
create table usage_day (
  org_id text not null references org on delete cascade,
  day date not null,
  watcher_id uuid not null,
  agent_id text not null,
  -- Nil: the device is gone.
  device_id uuid not null,
  runs bigint not null default 0,
  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  cached_input_tokens bigint not null default 0,
  -- Millionths of a US dollar, by the agents' own figures.
  cost_micros bigint not null default 0,
  -- Number of runs with a reported cost.
  runs_with_cost bigint not null default 0,
  primary key (org_id, watcher_id, day, agent_id, device_id)
) with (fillfactor = 70);
-- usage.summarize and retention.deleteOld
create index usage_day_day on usage_day (org_id, day);
call protect_tenant_table('usage_day');

-- Agents' questions to people, and their ends.
create table question (
  org_id text not null references org on delete cascade,
  run_id uuid not null,
  attempt_token uuid not null,
  -- The device's id of the question.
  id text not null,
  attempt int not null,
  watcher_id uuid not null,
  device_id uuid not null,
  -- JSON of the proto's Question.
  question jsonb not null,
  -- JSON of the QuestionPolicy at the start of the run.
  policy jsonb not null,
  asked_at timestamptz not null default now(),
  deadline_at timestamptz not null,
  state text not null default 'open' check (state in ('open', 'answered', 'expired', 'withdrawn')),
  -- The default until the answer; empty: no option.
  option_id text not null,
  text text not null default '',
  answered_by text not null default '',
  answered_at timestamptz,
  primary key (org_id, run_id, attempt_token, id),
  check ((state = 'open') = (answered_at is null))
);
-- questions.closeDue and countOpen: the few open questions
create index question_open on question (deadline_at) where state = 'open';
-- questions.list
create index question_asked on question (org_id, asked_at desc, run_id, id);
-- retention.deleteOld
create index question_age on question using brin (asked_at);
call protect_tenant_table('question');

-- The budget in the watcher's version, copied here for the passes: {"tokensMax": …,
-- "costMicrosMax": …}.
alter table watcher add column day_budget jsonb;

alter table run_finished drop constraint run_finished_skip_reason_check;
alter table run_finished add constraint run_finished_skip_reason_check
  check (skip_reason in ('overlap', 'cooldown', 'missed', 'offline_expired', 'no_executor', 'limit', 'budget')) not valid;
