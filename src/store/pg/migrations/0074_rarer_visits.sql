-- A visit of autovacuum to a table drops the kept plans of all statements with the table, on every connection, and the
-- statement that records a run takes 3 ms and more to plan. By PostgreSQL's own rules, after 50 changed rows and a share of
-- the table, the small tables that every trigger or heartbeat changes were visited every ten seconds: of 400 triggers at
-- 20 a second, 18 planned the statement. Counts of values in them say nothing to look-ups by keys, and updates within a page
-- are cleaned up without a visit. A crowd's changes are thousands in a moment, and are visited as before.
alter table run set (
  autovacuum_vacuum_threshold = 2000, autovacuum_analyze_threshold = 5000, autovacuum_analyze_scale_factor = 1);
alter table presence set (
  autovacuum_vacuum_threshold = 5000, autovacuum_analyze_threshold = 5000, autovacuum_analyze_scale_factor = 1);
alter table request set (autovacuum_analyze_threshold = 5000, autovacuum_analyze_scale_factor = 1);
alter table schedule_position set (autovacuum_analyze_threshold = 5000, autovacuum_analyze_scale_factor = 1);
