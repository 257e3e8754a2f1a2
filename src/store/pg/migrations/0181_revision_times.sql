-- The time of a version; for existing versions, the time of the migration.
alter table watcher_revision add column created_at timestamptz not null default now();
alter table agent_revision add column created_at timestamptz not null default now();
