-- Runs, live and ended, their results and reports.

-- Live runs: pending, claimed, running. A run moves to run_finished at its end, so the table stays
-- small. No index has a column that changes between claim and end, so such updates are HOT updates.
create table run (
  org_id text not null,
  id uuid not null default uuid_v7(),
  watcher_id uuid not null,
  watcher_version int not null,
  agent_id text not null,
  agent_version int not null,
  device_id uuid,
  agent_kind text not null,
  notification text not null,
  source text not null check (source in ('scheduled', 'manual', 'backfill', 'hook', 'after')),
  scheduled_for timestamptz,
  window_start timestamptz not null,
  window_end timestamptz not null,
  due_at timestamptz not null,
  created_at timestamptz not null default now(),
  start_deadline_at timestamptz,
  timeout_ms bigint not null,
  max_attempts int not null,
  retry_of uuid,
  status text not null default 'pending' check (status in ('pending', 'claimed', 'running')),
  attempt int not null default 0,
  -- The fence: set by the claim, unguessable, and in every message about the attempt. Null while
  -- pending.
  attempt_token uuid,
  not_before timestamptz,
  claimed_at timestamptz,
  -- The device session with the claim.
  claimed_epoch bigint,
  pushed_at timestamptz,
  started_at timestamptz,
  last_beat_at timestamptz,
  cancel_requested_at timestamptz,
  cancel_reason text,
  reason text not null default '',
  -- [{attempt, token, claimed_at, ended_at, last_beat_at, reason, is_reported}], oldest first.
  past_attempts jsonb not null default '[]',
  -- The pin at the time of materialization (R4). An unpinned run has a device_id only while a worker
  -- has its attempt, and after its end there.
  is_pinned boolean not null,
  -- Number of deferrals of a run at its device's request; limited in settlements.settle.
  deferrals int not null default 0,
  -- The session with the attempt: the device's newer session continues the attempt under the same
  -- token.
  claimed_session uuid,
  -- The run has a run_gate, and is placed before it is claimed.
  is_gated boolean not null default false,
  -- The run waits for placement: claims do not see it.
  is_held boolean not null default false,
  -- R1: at most one active run per watcher; for a watcher that runs on each matching device, at most
  -- one per device. Null: not spread (yet).
  spread_to uuid,
  primary key (org_id, id),
  check ((status = 'pending') = (attempt_token is null)),
  constraint run_pin_check check (case
    when is_pinned then device_id is not null
    when is_gated then status = 'pending' or device_id is not null
    else (device_id is null) = (status = 'pending') end),
  constraint run_held_check check (not is_held or (is_gated and status = 'pending'))
) with (fillfactor = 60, autovacuum_vacuum_scale_factor = 0.05);
-- attempts.claim, active.lockActive: held runs come after the others, and claims do not
-- read them.
create index run_device on run (org_id, device_id, is_held, due_at);
-- attempts.claim for workers, workers.findFleet
create index run_unpinned on run (org_id, agent_kind, due_at) where device_id is null and not is_held;
-- placements.listHeld
create index run_held on run (org_id, due_at) where is_held;
create unique index run_one_active on run (org_id, watcher_id, spread_to) nulls not distinct;
-- runs.lockExpired
create index run_start_deadline on run (start_deadline_at) where start_deadline_at is not null;
call protect_tenant_table('run');

-- Ended runs. Old partitions are dropped.
create table run_finished (
  org_id text not null,
  id uuid not null,
  watcher_id uuid not null,
  watcher_version int not null,
  agent_id text not null,
  agent_version int not null,
  device_id uuid,
  agent_kind text not null,
  notification text not null,
  source text not null,
  scheduled_for timestamptz,
  window_start timestamptz not null,
  window_end timestamptz not null,
  due_at timestamptz not null,
  created_at timestamptz not null,
  start_deadline_at timestamptz,
  timeout_ms bigint not null,
  max_attempts int not null,
  retry_of uuid,
  status text not null check (status in ('completed', 'failed', 'timeout', 'cancelled', 'skipped')),
  attempt int not null,
  attempt_token uuid,
  not_before timestamptz,
  claimed_at timestamptz,
  claimed_epoch bigint,
  pushed_at timestamptz,
  started_at timestamptz,
  last_beat_at timestamptz,
  cancel_requested_at timestamptz,
  cancel_reason text,
  reason text not null,
  past_attempts jsonb not null,
  finished_at timestamptz not null default now(),
  skip_reason text check (skip_reason in ('overlap', 'cooldown', 'missed', 'offline_expired', 'no_executor', 'limit', 'budget')),
  -- The device itself reported the end, under attempt_token; otherwise Pinion ended it.
  is_reported boolean not null default false,
  exit_code int,
  signal text not null default '',
  duration_ms bigint,
  output_tail text not null default '',
  window_id uuid,
  output text,
  is_output_truncated boolean,
  answer jsonb,
  -- For a run completed by a late result: the time of its arrival.
  stored_at timestamptz,
  primary key (org_id, id, finished_at),
  check ((status = 'skipped') = (skip_reason is not null)),
  -- R8: a run with an empty window has no result.
  constraint run_finished_window_check check (output is null or window_start < window_end)
) partition by range (finished_at);
-- runs.list for a watcher
create index run_finished_watcher on run_finished (org_id, watcher_id, id desc);
-- runs.list for a device
create index run_finished_device on run_finished (org_id, device_id, id desc) where device_id is not null;
-- runs.list for statuses: most runs complete, so completed runs are found soon in the order of ids;
-- the index is only for the few others.
create index run_finished_status on run_finished (org_id, status, id desc) where status <> 'completed';
-- Takes ends outside of the daily partitions (after days of downtime), so that no end is ever
-- refused.
create table run_finished_default partition of run_finished default;
-- The partitions are granted to no role: requests reach them through the table alone, and so
-- through its policies.
call protect_tenant_table('run_finished');

-- All runs, for readers.
create view run_all with (security_invoker = true) as
  select org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification, source,
    scheduled_for, window_start, window_end, due_at, created_at, start_deadline_at, timeout_ms, max_attempts, retry_of, status,
    attempt, attempt_token, not_before, claimed_at, claimed_epoch, pushed_at, started_at, last_beat_at,
    cancel_requested_at, cancel_reason, reason, past_attempts,
    null::timestamptz as finished_at, null::text as skip_reason, null::int as exit_code, ''::text as signal,
    null::bigint as duration_ms, ''::text as output_tail, null::uuid as window_id
  from run
  union all
  select org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification, source,
    scheduled_for, window_start, window_end, due_at, created_at, start_deadline_at, timeout_ms, max_attempts, retry_of, status,
    attempt, attempt_token, not_before, claimed_at, claimed_epoch, pushed_at, started_at, last_beat_at,
    cancel_requested_at, cancel_reason, reason, past_attempts,
    finished_at, skip_reason, exit_code, signal, duration_ms, output_tail, window_id
  from run_finished;
grant select on run_all to pinion_server, pinion_scheduler;

-- The conditions for placing a live run, from its watcher at the time of recording (R4). Rows of
-- ended runs are deleted by the next pass of their org.
create table run_gate (
  org_id text not null references org on delete cascade,
  run_id uuid not null,
  watcher_id uuid not null,
  selector text,
  -- The actor of the trigger, whose rights count beside the rights of the watcher's sponsor; null:
  -- started by the schedule.
  asked_by text,
  -- The agent continues the session of the watcher's last run, which is on one device.
  continues boolean not null,
  group_name text,
  group_max int,
  group_per text check (group_per in ('org', 'device')),
  priority int not null,
  rate_key text,
  rate_per_minute int,
  spread text check (spread in ('one', 'all')),
  placed_at timestamptz,
  primary key (org_id, run_id)
);
call protect_tenant_table('run_gate');

-- A window is its ended run (docs/decisions/0011): the result is stored in the run's row. A
-- watcher's last window outlives its run, in window_kept.
create table window_kept (
  org_id text not null,
  id uuid not null default uuid_v7(),
  watcher_id uuid not null,
  run_id uuid not null,
  window_start timestamptz not null,
  window_end timestamptz not null,
  model_used text not null,
  extracted_data jsonb not null,
  created_at timestamptz not null default now(),
  primary key (org_id, id),
  check (window_start < window_end),
  constraint window_is_of_its_run check (id = run_id)
);
-- windows.list
create index window_watcher on window_kept (org_id, watcher_id, id desc);
-- retention.deleteOld
create index window_age on window_kept using brin (created_at);
call protect_tenant_table('window_kept');

create view "window" with (security_invoker = true) as
  select org_id, id, watcher_id, id as run_id, window_start, window_end, 'device-cli'::text as model_used,
    jsonb_build_object('kind', 'device_cli_output', 'output', output, 'is_truncated', is_output_truncated,
      'exit_code', exit_code, 'agent_kind', agent_kind) || coalesce(answer, '{}') as extracted_data,
    coalesce(stored_at, finished_at) as created_at
  from run_finished where output is not null
  union all
  select org_id, id, watcher_id, run_id, window_start, window_end, model_used, extracted_data, created_at
  from window_kept;
grant select on "window" to pinion_server, pinion_scheduler;

-- Late results (R10): the end of a program whose attempt, or turn, had been taken away. Written by
-- src/store/work/attempts/late-results.ts and late-replies.ts.
create table late_result (
  org_id text not null,
  id uuid not null default uuid_v7(),
  -- The run, or the turn.
  subject_id uuid not null,
  kind text not null check (kind in ('run', 'turn')),
  attempt int not null,
  attempt_token uuid not null,
  -- The device or fleet worker that had the attempt.
  device_id uuid not null,
  outcome text not null check (outcome in ('completed', 'failed', 'timeout', 'cancelled')),
  -- The report became the run's own end; its output is stored with the run, and not here.
  has_settled boolean not null,
  output text not null,
  is_output_truncated boolean not null,
  -- {result, structured}, for an agent with a report.
  answer jsonb not null default '{}',
  exit_code int,
  signal text not null,
  reason text not null,
  duration_ms bigint,
  -- The time of arrival. Named as in the other tables with daily partitions.
  finished_at timestamptz not null default now(),
  primary key (org_id, id, finished_at)
) partition by range (finished_at);
-- lateResults.list, lateResults.store (the check for a stored report, and for the maximum)
create index late_result_subject on late_result (org_id, subject_id);
-- Takes results outside of the daily partitions, so that no result is ever refused.
create table late_result_default partition of late_result default;
-- The partitions are granted to no role: requests reach them through the table alone, and so
-- through its policies.
call protect_tenant_table('late_result');

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
-- runs.list for runs with reasons for attention
create index run_report_attention on run_report (org_id, run_id desc) where attention <> '{}';
create table run_report_default partition of run_report default;
call protect_tenant_table('run_report');

-- Agents' questions to people, and their ends.
create table question (
  org_id text not null references org on delete cascade,
  work_id uuid not null,
  attempt_token uuid not null,
  -- The device's id of the question.
  id text not null,
  attempt int not null,
  watcher_id uuid,
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
  is_turn boolean not null default false,
  primary key (org_id, work_id, attempt_token, id),
  check ((state = 'open') = (answered_at is null))
);
-- questions.closeDue and countOpen: the few open questions
create index question_open on question (deadline_at) where state = 'open';
-- questions.list
create index question_asked on question (org_id, asked_at desc, work_id, id);
-- retention.deleteOld
create index question_age on question using brin (asked_at);
call protect_tenant_table('question');

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

-- Work on many runs in the background (src/store/work/runs/bulks.ts).
create table bulk_operation (
  org_id text not null references org on delete cascade,
  id uuid not null,
  kind text not null check (kind in ('cancel', 'retry', 'replay')),
  -- {statuses, watcherId, deviceId, labels, since, until}, for people.
  filter jsonb not null,
  reason text not null,
  actor text not null,
  state text not null default 'running' check (state in ('running', 'finished', 'stopped')),
  created_at timestamptz not null default now(),
  finished_at timestamptz,
  primary key (org_id, id),
  check ((state = 'running') = (finished_at is null))
);
-- bulks.lockNext
create index bulk_operation_running on bulk_operation (created_at) where state = 'running';
-- retention.deleteOld
create index bulk_operation_age on bulk_operation using brin (created_at);
call protect_tenant_table('bulk_operation');

-- The operation's runs, each once.
create table bulk_item (
  org_id text not null,
  bulk_id uuid not null,
  run_id uuid not null,
  state text not null default 'pending' check (state in ('pending', 'done', 'passed_over', 'failed')),
  -- The reason of a failure, or of waiting.
  note text not null default '',
  not_before timestamptz,
  primary key (org_id, bulk_id, run_id),
  foreign key (org_id, bulk_id) references bulk_operation on delete cascade
);
-- bulks.listItems, bulks.finish
create index bulk_item_pending on bulk_item (org_id, bulk_id, run_id) where state = 'pending';
call protect_tenant_table('bulk_item');
