-- Late results (R10): the end of a program whose attempt, or turn, had been taken away. Written by
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

-- [{attempt, token, holder_id, ended_at, reason}], oldest first: withdrawn claims, whose replies
-- may still come.
alter table turn add column past_attempts jsonb not null default '[]';
alter table turn_finished add column past_attempts jsonb not null default '[]';
