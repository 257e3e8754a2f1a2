-- Agents also ask during a turn. The run id of a question is then the turn's id, as on the stream;
-- its watcher is the watcher of the run that the turn continues, if any.
alter table question alter column watcher_id drop not null;
alter table question add column is_turn boolean not null default false;
