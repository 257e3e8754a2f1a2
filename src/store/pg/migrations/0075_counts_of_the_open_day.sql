-- locks in access exclusive mode: run_count
-- locks in share row exclusive mode: org, run_finished_default

-- Counts of a long time and of the day that is under way, without reading each end:
-- store/work/service/open-day.ts and past-days.ts write the sums, store/work/runs/run-counts.ts
-- reads them.

-- Ends before this moment are in the sums; null: those of the whole day.
alter table run_count add column until timestamptz;

-- The runs that ended on devices within some hours, without skipped ones, and for how long each
-- device was busy. Blocks of several lengths: a time is made up of few of them
-- (store/work/service/device-blocks.ts). One row has all devices of an org.
create table run_count_devices (
  org_id text not null references org on delete cascade,
  -- Blocks begin at multiples of their length since 1970.
  start timestamptz not null,
  hours int not null,
  -- Null: a block of several days.
  day date,
  id uuid not null default uuid_v7(),
  device_ids uuid[] not null,
  runs int[] not null,
  busy_ms bigint[] not null,
  -- Changes of ended runs, in the shortest blocks; longer ones do not have them.
  is_change boolean not null default false,
  primary key (org_id, hours, start, id),
  foreign key (org_id, day) references run_count on delete cascade
);
-- run-counts.summarize and pastDays.addUpChanges
create index run_count_devices_change on run_count_devices (org_id, start) where is_change;
-- The cascade, and pastDays.forget
create index run_count_devices_day on run_count_devices (day, org_id);
call protect_tenant_table('run_count_devices');

-- The usage of past days of all watchers and devices: usage.summarize. Made with the sums of a day.
-- A day of an org without rows here is summed up from usage_day.
create table usage_sum (
  org_id text not null,
  day date not null,
  agent_id text not null,
  runs bigint not null,
  input_tokens bigint not null,
  output_tokens bigint not null,
  cached_input_tokens bigint not null,
  cost_micros bigint not null,
  runs_with_cost bigint not null,
  primary key (org_id, day, agent_id),
  foreign key (org_id, day) references run_count on delete cascade
);
call protect_tenant_table('usage_sum');

-- Usage is added to the sums of today. A clock that was set back has it added to a past day, which
-- has no sums then.
create function forget_usage_sum() returns trigger
language plpgsql
as $$
begin
  if new.org_id is distinct from current_setting('pinion.mover', true) then
    delete from usage_sum where org_id = new.org_id and day = new.day;
  end if;
  return null;
end $$;

-- Has the trigger know the days with sums. Called by whoever adds sums; usage of a later day pays
-- for one comparison.
create procedure watch_usage_sums()
language plpgsql
as $$
declare
  last date := (select max(day) from usage_sum);
begin
  if last is not null then
    execute format('create or replace trigger summed after insert or update on usage_day for each row when (new.day <= %L) '
      'execute function forget_usage_sum()', last);
  end if;
end $$;

-- Adds the change of an ended run to the sums of its day, if there are any. The argument: the
-- moment until which the ends of the day are in the sums; none: all are.
create or replace function add_changed_end() returns trigger
language plpgsql
as $$
declare
  until timestamptz := tg_argv[0];
begin
  -- A move of the org brings or deletes the sums together with the rows.
  if coalesce(new.org_id, old.org_id) = current_setting('pinion.mover', true) then
    return null;
  end if;
  with changed as (
    select c.*, (c.finished_at at time zone 'UTC')::date as day
    from (values (old.org_id, old.finished_at, old.status, old.device_id, old.duration_ms, -1),
      (new.org_id, new.finished_at, new.status, new.device_id, new.duration_ms, 1))
      c (org_id, finished_at, status, device_id, duration_ms, runs)
    where until is null or c.finished_at < until
  ), counted as (
    select c.* from changed c join run_count n on n.org_id = c.org_id and n.day = c.day
  ), of_device as (
    insert into run_count_devices (org_id, start, hours, day, device_ids, runs, busy_ms, is_change)
    select org_id, date_bin('3 hours', finished_at, 'epoch'), 3, day, array[device_id], array[runs],
      array[runs * coalesce(duration_ms, 0)], true
    from counted where device_id is not null and status <> 'skipped'
  )
  insert into run_count_hour (org_id, day, hour, status, runs, minutes, is_change)
  select org_id, day, date_trunc('hour', finished_at, 'UTC'), status, runs,
    array(select case when minute = extract(minute from finished_at at time zone 'UTC') then runs else 0 end
      from generate_series(0, 59) minute order by minute), true
  from counted;
  return null;
end $$;

-- Has the changes of a partition of run_finished added to the sums: of all its ends, or of those
-- before a moment. An end after the moment pays for a comparison.
drop procedure count_changed_ends(regclass);
create procedure count_changed_ends(partition regclass, until timestamptz default null)
language plpgsql
as $$
begin
  execute format('create or replace trigger counted_new after insert on %s for each row %s execute function add_changed_end(%s)',
    partition, case when until is not null then format('when (new.finished_at < %L)', until) end, quote_literal(until));
  execute format('create or replace trigger counted after delete or update of status, device_id, duration_ms, finished_at '
    'on %s for each row execute function add_changed_end(%s)', partition, quote_literal(until));
end $$;
call count_changed_ends('run_finished_default');

-- The sums of past days are made anew, with blocks of devices: a replica's retention closes the days
-- once more. Before the first release: a replica of before, until it is replaced, takes the sums of the
-- open day for those of the whole day, and shows no devices of days with sums.
delete from run_count;
