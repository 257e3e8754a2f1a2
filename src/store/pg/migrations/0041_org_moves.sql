-- Orgs that move to another cell, as fence and journal (docs/scaling.md). At the cell that an org
-- leaves the row stays after the move, and tells holders of old tokens the org's new cell.
create table org_move (
  org_id text primary key,
  -- out: the org leaves. in: the org is copied here, and is not here yet.
  direction text not null check (direction in ('out', 'in')),
  -- The name of the other cell.
  cell text not null,
  -- closing: sessions and calls end. fenced: no transaction of a replica sees or writes the org's
  -- rows. moved: the org is at the other cell; final. For `in` always fenced.
  state text not null check (state in ('closing', 'fenced', 'moved')),
  began_at timestamptz not null default now(),
  fenced_at timestamptz,
  -- For `in`: the tables copied and compared, with the number of rows and the digest.
  copied jsonb not null default '{}'
);
call protect_tenant_table('org_move');

