-- [{from, to}] of a device, oldest first, the latest 20: written when a session opens after an absence beyond the TTL.
alter table device add column absences jsonb not null default '[]';
