-- The highest seq of the org's events that retention has deleted; 0: none. A reader who resumes after a lower one has missed
-- something.
alter table org add column events_deleted_through bigint not null default 0;
