-- Labels given to a device by people; the device's own reports are in its other columns
-- (src/labels.ts).
alter table device add column labels text[] not null default '{}';
