-- Functions, roles, the table of replicas, and the clock. Row-level security stands behind the guard;
-- see docs/security.md. Times are judged by the database's clock (R7).

create function uuid_v7() returns uuid
language sql volatile parallel safe
as $$
  -- RFC 9562: 48 bits of Unix milliseconds, then random bits under version 7.
  select encode(
    set_bit(set_bit(
      overlay(uuid_send(gen_random_uuid())
        placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3)
        from 1 for 6),
      52, 1), 53, 1),
    'hex')::uuid
$$;

-- Row-level security behind the guard; see docs/security.md.
--
-- Requests run as pinion_server: the role sees the rows of the org in the setting pinion.org, and
-- none without the setting. Passes over all orgs run as pinion_scheduler. Neither role owns a
-- table. The database's user is a member of both: as the scheduler by inheritance, and as
-- pinion_server in each transaction of a request by `set local role pinion_server`.
do $$
declare
  role_name text;
begin
  foreach role_name in array array['pinion_server', 'pinion_scheduler'] loop
    if not exists (select from pg_roles where rolname = role_name) then
      begin
        execute format('create role %I nologin', role_name);
      exception
        -- Roles are the cluster's, and another database of it was migrated at the same moment.
        when duplicate_object or unique_violation then null;
        when insufficient_privilege then
          raise exception 'The database user "%" may not create the role %. Have an administrator run: '
            'create role pinion_server nologin; create role pinion_scheduler nologin; '
            'grant pinion_server, pinion_scheduler to %;', current_user, role_name, quote_ident(current_user)
            using errcode = 'insufficient_privilege';
      end;
    end if;
    if not (select rolsuper from pg_roles where rolname = current_user) then
      begin
        execute format('grant %I to %I', role_name, current_user);
      exception
        -- An administrator made the role, and granted it; the start of a replica looks whether it is so.
        when insufficient_privilege then null;
      end;
    end if;
  end loop;
end $$;

-- Called by a migration for each new table with an org_id.
create procedure protect_tenant_table(name regclass)
language plpgsql
as $$
begin
  execute format('alter table %s enable row level security', name);
  -- The owner too: it passes as a member of pinion_scheduler.
  execute format('alter table %s force row level security', name);
  -- In a sub-select the setting is read once for a statement, not for each row.
  execute format('create policy tenant on %s to pinion_server '
    'using (org_id = (select current_setting(''pinion.org'', true))) '
    'with check (org_id = (select current_setting(''pinion.org'', true)))', name);
  execute format('create policy every_tenant on %s to pinion_scheduler using (true) with check (true)', name);
  execute format('grant select, insert, update, delete on %s to pinion_server, pinion_scheduler', name);
end $$;

-- A row for each `pinion serve`. A replica with an old heartbeat is gone, and its streams with it.
create table replica (
  id text primary key,
  address text not null,
  started_at timestamptz not null default now(),
  last_beat_at timestamptz not null default now()
);
-- No tenant's data.
grant select, insert, update, delete on replica to pinion_scheduler;

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
