-- When a version was written; of those that were there before, when this was noted.
alter table watcher_revision add column created_at timestamptz not null default now();
alter table agent_revision add column created_at timestamptz not null default now();
