-- Late results (R10): what a program ended with after its attempt, or its turn, had been taken away. Written by
-- src/store/work/late-results.ts and late-replies.ts.

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
  -- The report became the run's own end after all; its output is where a run's is, and not here.
  has_settled boolean not null,
  output text not null,
  is_output_truncated boolean not null,
  -- {result, structured}, of an agent that tells.
  answer jsonb not null default '{}',
  exit_code int,
  signal text not null,
  reason text not null,
  duration_ms bigint,
  -- When it came. Named as in the other tables that are dropped by day.
  finished_at timestamptz not null default now(),
  primary key (org_id, id, finished_at)
) partition by range (finished_at);
-- lateResults.list, lateResults.store (has it been kept already, and how much has been)
create index late_result_subject on late_result (org_id, subject_id);
-- Catches what no daily partition covers, so that no result is ever refused.
create table late_result_default partition of late_result default;
-- Its partitions are granted to nobody: requests reach them through it alone, and so through its policies.
call protect_tenant_table('late_result');

-- [{attempt, token, holder_id, ended_at, reason}], oldest first: claims that were withdrawn, whose replies may come yet.
alter table turn add column past_attempts jsonb not null default '[]';
alter table turn_finished add column past_attempts jsonb not null default '[]';
