import { openCluster, query } from "./lib/cluster.ts";
import { openLifecycle, runLifecycle } from "./lifecycle.ts";

const cluster = await openCluster({
  shared_preload_libraries: "pg_stat_statements",
  "pg_stat_statements.track_planning": "on",
  ...(process.env.EXPLAIN
    ? {
        shared_preload_libraries: "pg_stat_statements,auto_explain",
        "auto_explain.log_min_duration": "12ms",
        "auto_explain.log_analyze": "on",
        "auto_explain.log_timing": "on",
      }
    : {}),
});
try {
  const bench = await openLifecycle(cluster, "lifecycle", {
    runs: Number(process.argv[2] ?? 20000),
    devices: Number(process.argv[3] ?? 1000),
    orgs: Number(process.argv[4] ?? 10),
    replicas: Number(process.argv[5] ?? 1),
  });
  await runLifecycle(cluster, bench);
  await query(bench.url, "create extension pg_stat_statements");
  await query(bench.url, "select pg_stat_statements_reset()");
  console.log(await runLifecycle(cluster, bench));
  const { rows } = await query(
    bench.url,
    "select calls, round(total_exec_time) as exec, round(total_plan_time) as plan, (rows / greatest(calls, 1))::int as rows_a_call, round((total_exec_time+total_plan_time)::numeric/greatest(calls,1),2) as each, wal_bytes/1024 as wal, left(regexp_replace(query, '\\s+', ' ', 'g'), 110) as q from pg_stat_statements order by total_exec_time+total_plan_time desc limit 14",
  );
  console.table(rows);
  await bench.close();
} finally {
  await cluster.close();
}
process.exit(0);
