-- Every end of a run changes its watcher, and every batch appends events: PostgreSQL's own rule, an analysis after 10 % of
-- changed rows, analyzed both every ten seconds, and made all kept plans of them anew. Neither the counts of values nor
-- the plans, which look rows up by keys, change with it. The partitions of ended runs have the same setting from their
-- creation on (partitions.tend).
alter table watcher set (autovacuum_analyze_scale_factor = 5);
alter table event_row set (autovacuum_analyze_scale_factor = 1);
do $$
declare
  partition regclass;
begin
  for partition in
    select i.inhrelid::regclass from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent in ('run_finished'::regclass, 'turn_finished'::regclass, 'run_report'::regclass, 'late_result'::regclass)
      and c.relkind = 'r'
  loop
    execute format('alter table %s set (autovacuum_analyze_scale_factor = 1)', partition);
  end loop;
end $$;
