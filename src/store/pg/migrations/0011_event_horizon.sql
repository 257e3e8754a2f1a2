-- The highest seq of the org's events deleted by retention; 0: none. A reader that resumes after a
-- lower seq has missed events.
alter table org add column events_deleted_through bigint not null default 0;
