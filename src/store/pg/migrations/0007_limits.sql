-- A slot skipped because its org had its maximum of active runs. Existing rows satisfy the narrower
-- rule already.
alter table run_finished drop constraint run_finished_skip_reason_check;
alter table run_finished add constraint run_finished_skip_reason_check
  check (skip_reason in ('overlap', 'cooldown', 'missed', 'offline_expired', 'no_executor', 'limit')) not valid;

-- A webhook's address is a secret; an earlier version stored it as a setting, and in events. The
-- platforms' own settings are sealed at the next start, which has the keys.
update event e set data = jsonb_set(e.data, '{config,url}', '"***"')
from org o
where e.org_id = o.id and e.kind in ('platform.created', 'platform.updated') and e.data -> 'config' ? 'url'
  and (e.data ->> 'kind' = 'webhook'
    or exists (select from platform p
      where p.org_id = e.org_id and p.stable_id = e.data ->> 'platform_id' and p.kind = 'webhook'));
