-- locks in access exclusive mode: destination, hook, platform

-- When each secret was last set, and how often: {"bot_token": {"version": 2, "set_at": "…"}}. A new encryption key
-- counts as neither.
alter table platform add column secret_marks jsonb not null default '{}';
alter table destination add column secret_marks jsonb not null default '{}';
alter table hook add column secret_version integer not null default 1;
alter table hook add column secret_set_at timestamptz not null default now();
