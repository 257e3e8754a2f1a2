-- locks in access exclusive mode: run_report

-- runs.list for runs with reasons for attention: which reasons these are is read from the index. The
-- reports of an org with reasons are on as many pages as there are reports.
drop index run_report_attention;
create index run_report_attention on run_report (org_id, run_id desc) include (attention) where attention <> '{}';
