-- What is known of the database's own clock, which judges everything else (src/scheduler/clock.ts).

-- One row.
create table clock (
  is_one boolean primary key default true check (is_one),
  -- The newest reading that was not in doubt; written once a minute.
  seen_at timestamptz,
  -- The time that retention counts ages from. It follows the clock, a day per pass at most.
  retained_at timestamptz,
  -- When the schedules were last looked through for those that are too far ahead.
  replanned_at timestamptz
);
insert into clock default values;

-- Jumps forward that were noticed. While one is open nothing is deleted by its age, and no slots are recorded.
create table clock_jump (
  id bigint generated always as identity primary key,
  -- What noticed it: a replica's monotonic clock, or the newest commit (of a start after a long absence).
  witness text not null check (witness in ('monotonic', 'commits')),
  noticed_by text not null,
  -- What the clock said, and what it was expected to say.
  noticed_at timestamptz not null,
  expected_at timestamptz not null,
  -- gone: the clock went back. refuted: another replica's clocks saw no jump. accepted: it persisted for as long as was
  -- configured. confirmed: a person said that it is right.
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
