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

call protect_tenant_table('member');
call protect_tenant_table('device');
call protect_tenant_table('token');
call protect_tenant_table('join_code');
call protect_tenant_table('presence');
call protect_tenant_table('agent');
call protect_tenant_table('agent_revision');
call protect_tenant_table('watcher');
call protect_tenant_table('watcher_revision');
call protect_tenant_table('backlog');
call protect_tenant_table('slot');
call protect_tenant_table('run');
-- The partitions are granted to no role: requests reach them through the table alone, and so
-- through its policies.
call protect_tenant_table('run_finished');
call protect_tenant_table('"window"');
call protect_tenant_table('event');
-- Append-only for requests. The scheduler deletes rows past their retention.
revoke update, delete on event from pinion_server;
revoke update on event from pinion_scheduler;

-- Orgs are created and removed across orgs, and not by requests within an org.
alter table org enable row level security;
alter table org force row level security;
create policy tenant on org to pinion_server
  using (id = (select current_setting('pinion.org', true)))
  with check (id = (select current_setting('pinion.org', true)));
create policy every_tenant on org to pinion_scheduler using (true) with check (true);
grant select, update on org to pinion_server;
grant select, insert, update, delete on org to pinion_scheduler;

-- A person may be in several orgs; a request sees the people of its own org (member has its own
-- policy).
alter table "user" enable row level security;
alter table "user" force row level security;
create policy tenant on "user" for select to pinion_server using (id in (select user_id from member));
create policy every_tenant on "user" to pinion_scheduler using (true) with check (true);
grant select on "user" to pinion_server;
grant select, insert, update, delete on "user" to pinion_scheduler;

-- No tenant's data.
grant select, insert, update, delete on replica to pinion_scheduler;

-- Otherwise a view reads as its owner.
alter view run_all set (security_invoker = true);
grant select on run_all to pinion_server, pinion_scheduler;
