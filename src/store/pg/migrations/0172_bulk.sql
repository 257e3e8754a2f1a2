-- Work on many runs in the background (src/store/work/bulks.ts).
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
