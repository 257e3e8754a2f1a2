-- How often a run was put off because its device asked for another try later; bounded in settlements.settle.
alter table run add column deferrals int not null default 0;
