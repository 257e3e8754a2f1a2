-- External starts of runs (DESIGN 15): their inputs, hooks, chains.

alter table watcher drop constraint watcher_overlap_check;
alter table watcher add constraint watcher_overlap_check check (overlap in ('skip', 'queue_one', 'queue_all'));
