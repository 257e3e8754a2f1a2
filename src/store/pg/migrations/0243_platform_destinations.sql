-- Results may go to a chat of a platform.
alter table destination drop constraint destination_kind_check;
alter table destination add constraint destination_kind_check check (kind in ('webhook', 'slack', 'email', 'platform'));
