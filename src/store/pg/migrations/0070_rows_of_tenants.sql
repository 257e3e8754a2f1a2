-- locks in access exclusive mode: agent, agent_revision, backlog, bulk_item, bulk_operation, conversation, delivery
-- locks in access exclusive mode: destination, device, device_grant, device_past, event_row, hook, hook_delivery
-- locks in access exclusive mode: join_code, late_result, member, org_move, platform, platform_instance
-- locks in access exclusive mode: platform_question, platform_reply, platform_state, presence, question, rate_key
-- locks in access exclusive mode: request, run, run_finished, run_gate, run_report, run_start, schedule_position
-- locks in access exclusive mode: sign_in, slot, token, turn, turn_finished, turn_message, usage_day, watcher
-- locks in access exclusive mode: watcher_after, watcher_revision, window_kept

-- The policies of tenants as PostgreSQL expects their rows. Statements of a tenant name the org, and the policy compares
-- the org once more: PostgreSQL took the two for independent, expected a thousandth of a big org's rows, and sorted all
-- its ended runs for a page of them. Of a "case" it expects a half.
create or replace procedure protect_tenant_table(name regclass)
language plpgsql
as $$
begin
  execute format('alter table %s enable row level security', name);
  -- The owner too: it passes as a member of pinion_scheduler.
  execute format('alter table %s force row level security', name);
  -- In a sub-select the setting is read once for a statement, not for each row.
  execute format('create policy tenant on %s to pinion_server '
    'using (case when org_id = (select current_setting(''pinion.org'', true)) then true else false end) '
    'with check (org_id = (select current_setting(''pinion.org'', true)))', name);
  execute format('create policy every_tenant on %s to pinion_scheduler using (true) with check (true)', name);
  execute format('grant select, insert, update, delete on %s to pinion_server, pinion_scheduler', name);
end $$;

do $$
declare
  protected name;
begin
  for protected in
    select c.relname from pg_policy p join pg_class c on c.oid = p.polrelid
    where p.polname = 'tenant' and c.relnamespace = 'public'::regnamespace and exists (
      select from pg_attribute a where a.attrelid = c.oid and a.attname = 'org_id' and not a.attisdropped)
    order by c.relname
  loop
    execute format('alter policy tenant on %I '
      'using (case when org_id = (select current_setting(''pinion.org'', true)) then true else false end)', protected);
  end loop;
end $$;

-- turns.list for statuses, as with runs: most turns complete.
create index turn_finished_status on turn_finished (org_id, status, id desc) where status <> 'completed';

-- starts.listChain: the retries among the followers, which run_start_after leaves out.
create index run_start_after_again on run_start (org_id, after_run_id) where after_run_id is not null and is_retry;
