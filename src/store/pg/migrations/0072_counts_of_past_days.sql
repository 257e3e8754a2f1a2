-- locks in share row exclusive mode: org, run_finished

-- The ends of past days in sums, derived from run_finished: store/work/service/past-days.ts writes them,
-- store/work/runs/run-counts.ts reads them. Reading the sums or the rows gives the same numbers.

-- The days (UTC) of orgs with sums. For each of them the partition with the rows has the trigger below.
create table run_count (
  org_id text not null references org on delete cascade,
  day date not null,
  primary key (org_id, day)
);
-- pastDays.forget
create index run_count_age on run_count (day);
call protect_tenant_table('run_count');

-- How the runs of an hour ended. The sums of an hour and a status are added up: changes of ended runs
-- are rows of their own, so that no writer waits for another.
create table run_count_hour (
  org_id text not null,
  day date not null,
  -- The beginning of the hour.
  hour timestamptz not null,
  status text not null,
  id uuid not null default uuid_v7(),
  runs int not null,
  -- The same for each of the 60 minutes.
  minutes int[] not null,
  is_change boolean not null default false,
  primary key (org_id, day, hour, status, id),
  foreign key (org_id, day) references run_count on delete cascade
);
-- pastDays.addUp
create index run_count_hour_change on run_count_hour (org_id, day) where is_change;
call protect_tenant_table('run_count_hour');

-- The runs that ended on a device, without skipped ones, and for how long it was busy with them.
create table run_count_device (
  org_id text not null,
  day date not null,
  device_id uuid not null,
  id uuid not null default uuid_v7(),
  runs int not null,
  busy_ms bigint not null,
  is_change boolean not null default false,
  primary key (org_id, day, device_id, id),
  foreign key (org_id, day) references run_count on delete cascade
);
-- pastDays.addUp
create index run_count_device_change on run_count_device (org_id, day) where is_change;
call protect_tenant_table('run_count_device');

-- Adds the change of an ended run to the sums of its day, if there are any.
create function add_changed_end() returns trigger
language plpgsql
as $$
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
  ), counted as (
    select c.* from changed c join run_count n on n.org_id = c.org_id and n.day = c.day
  ), of_device as (
    insert into run_count_device (org_id, day, device_id, runs, busy_ms, is_change)
    select org_id, day, device_id, runs, runs * coalesce(duration_ms, 0), true
    from counted where device_id is not null and status <> 'skipped'
  )
  insert into run_count_hour (org_id, day, hour, status, runs, minutes, is_change)
  select org_id, day, date_trunc('hour', finished_at, 'UTC'), status, runs,
    array(select case when minute = extract(minute from finished_at at time zone 'UTC') then runs else 0 end
      from generate_series(0, 59) minute order by minute), true
  from counted;
  return null;
end $$;

-- Has the changes of a partition of run_finished added to the sums. Not for the partition of today or of
-- a later day, where each end would pay for it.
create procedure count_changed_ends(partition regclass)
language plpgsql
as $$
begin
  execute format('create or replace trigger counted after insert or delete or update of status, device_id, duration_ms, '
    'finished_at on %s for each row execute function add_changed_end()', partition);
end $$;

-- Has the rows of days without a partition; an org that moved here may have sums of such a day.
call count_changed_ends('run_finished_default');
