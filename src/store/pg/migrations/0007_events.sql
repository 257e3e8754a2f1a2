-- The log of each org.

-- The events of every run, packed: a row for the events of an org, a transaction and a kind
-- (docs/decisions/0011).
create table event_row (
  org_id text not null,
  seq bigint generated always as identity (sequence name event_seq_seq),
  at timestamptz not null default now(),
  kind text not null,
  actor text not null,
  run_id uuid,
  watcher_id uuid,
  device_id uuid,
  data jsonb not null default '{}',
  -- The source of an event's call: {address, token_id, user_agent, request_id}. Null: Pinion's own
  -- event, without a call.
  source jsonb,
  -- For a packed row: the numbers and the subjects of its events, in order; seq is the last number.
  -- The other columns hold for each event; the actor 'device' means the device of each event.
  seqs bigint[],
  run_ids uuid[],
  watcher_ids uuid[],
  device_ids uuid[],
  primary key (org_id, seq),
  constraint event_row_packed_check check (
    seqs is null and run_ids is null and watcher_ids is null and device_ids is null
    or (seq = seqs[cardinality(seqs)] and cardinality(run_ids) = cardinality(seqs)
      and cardinality(watcher_ids) = cardinality(seqs) and cardinality(device_ids) = cardinality(seqs)) is true
  )
);
-- events.list for a run
create index event_run on event_row (org_id, run_id, seq) where run_id is not null;
-- retention
create index event_age on event_row using brin (at);
-- events.list for kinds: likewise for the two kinds of every run.
create index event_kind on event_row (org_id, kind text_pattern_ops, seq) where kind not in ('run.created', 'run.completed');
-- events.list of a run: packed rows are found by the run's start and end.
create index event_packed on event_row (org_id, kind, at) where seqs is not null;
call protect_tenant_table('event_row');
-- Append-only for requests. The scheduler deletes rows past their retention.
revoke update, delete on event_row from pinion_server;
revoke update on event_row from pinion_scheduler;

-- The unpacked events.
create view event with (security_invoker = true) as
  select e.org_id, coalesce(p.seq, e.seq) as seq, e.at, e.kind,
    case when e.actor = 'device' then 'device:' || p.device_id else e.actor end as actor,
    coalesce(p.run_id, e.run_id) as run_id, coalesce(p.watcher_id, e.watcher_id) as watcher_id,
    coalesce(p.device_id, e.device_id) as device_id,
    case when e.kind = 'run.completed' and p.run_id is not null then e.data || jsonb_build_object('window_id', p.run_id)
      else e.data end as data,
    e.source
  from event_row e
    left join lateral unnest(e.seqs, e.run_ids, e.watcher_ids, e.device_ids) with ordinality
      as p (seq, run_id, watcher_id, device_id, place) on true;
grant select on event to pinion_server, pinion_scheduler;

-- The numbers are drawn by the sequence's name, several for a packed row.
grant usage on sequence event_seq_seq to pinion_server, pinion_scheduler;
