-- Number of deferrals of a run at its device's request; limited in settlements.settle.
alter table run add column deferrals int not null default 0;
