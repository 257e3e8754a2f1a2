-- The state of the database's own clock, the reference for all times (src/scheduler/clock.ts).

-- One row.
create table clock (
  is_one boolean primary key default true check (is_one),
  -- The newest reading without doubt; written once a minute.
  seen_at timestamptz,
  -- The reference time for ages in retention. It follows the clock, by at most a day per pass.
  retained_at timestamptz,
  -- The time of the last check for schedules that are too far ahead.
  replanned_at timestamptz
);
insert into clock default values;

-- Discovered forward jumps. While a jump is open nothing is deleted by age, and no slots are
-- recorded.
create table clock_jump (
  id bigint generated always as identity primary key,
  -- The witness: a replica's monotonic clock, or the newest commit (at a start after a long
  -- absence).
  witness text not null check (witness in ('monotonic', 'commits')),
  noticed_by text not null,
  -- The clock's time, and its expected time.
  noticed_at timestamptz not null,
  expected_at timestamptz not null,
  -- gone: the clock went back. refuted: another replica's clocks saw no jump. accepted: the jump
  -- persisted for the configured time. confirmed: a person confirmed the clock.
  resolution text check (resolution in ('gone', 'refuted', 'accepted', 'confirmed')),
  resolved_at timestamptz,
  resolved_by text
);
-- One at a time: clock_jumps.open
create unique index clock_jump_open on clock_jump ((true)) where resolution is null;

-- No tenant's data.
grant select, update on clock to pinion_scheduler;
grant select on clock, clock_jump to pinion_server;
grant select, insert, update, delete on clock_jump to pinion_scheduler;
