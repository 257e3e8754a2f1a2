-- The workspace in the watcher's version, copied here for the passes; null: none.
alter table watcher add column workspace text;
update watcher w set workspace = nullif(v.agent_work->>'workspace', '')
from watcher_revision v
where v.org_id = w.org_id and v.watcher_id = w.id and v.version = w.version and v.agent_work ? 'workspace';
