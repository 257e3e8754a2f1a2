-- Agents ask in the middle of a turn, too. A turn's id stands where a question of a run names its run, as on the stream;
-- its watcher is that of the run that the turn goes on from, if there is one.
alter table question alter column watcher_id drop not null;
alter table question add column is_turn boolean not null default false;
