-- Labels that people gave a device; what the device itself reports is in its other columns (src/labels.ts).
alter table device add column labels text[] not null default '{}';
