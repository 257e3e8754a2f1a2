-- Cells: see docs/scaling.md. The name of the cell that the database belongs to, written by the first
-- replica with PINION_CELL; no row for the only cell.
create table cell (
  is_one boolean primary key default true check (is_one),
  name text not null check (name ~ '^[a-z][a-z0-9]{0,15}$')
);
-- No tenant's data.
grant select, insert, update on cell to pinion_scheduler;
grant select on cell to pinion_server;
