/**
 * The statements behind `turns`. Prints its rows, the CPU of PostgreSQL and of the replica for
 * 1,000 turns, and the dearest statements. `node bench/profile-turns.ts 20 50 20`: so many orgs, so
 * many conversations in each, so many turns in each conversation.
 */
import { openCluster, query } from "./lib/cluster.ts";
import { measureTurns } from "./turns.ts";

const cluster = await openCluster({
  shared_preload_libraries: "pg_stat_statements",
  "pg_stat_statements.track_planning": "on",
  ...(process.env.EXPLAIN
    ? {
        shared_preload_libraries: "pg_stat_statements,auto_explain",
        "auto_explain.log_min_duration": process.env.EXPLAIN,
        "auto_explain.log_analyze": "on",
        "auto_explain.log_buffers": "on",
      }
    : {}),
});
try {
  const options = {
    orgs: Number(process.argv[2] ?? 20),
    conversations: Number(process.argv[3] ?? 50),
    turnsEach: Number(process.argv[4] ?? 20),
  };
  const measured = await measureTurns(cluster, options, async (url) => {
    await query(url, "create extension if not exists pg_stat_statements");
    await query(url, "select pg_stat_statements_reset()");
    return async (name) => {
      const { rows } = await query(
        url,
        `select calls, round(total_exec_time) as exec, round(total_plan_time) as plan, plans,
          round((total_exec_time + total_plan_time)::numeric / greatest(calls, 1), 2) as each,
          (rows / greatest(calls, 1))::int as rows, wal_bytes / 1024 as wal,
          left(regexp_replace(query, '\\s+', ' ', 'g'), 110) as q
        from pg_stat_statements order by total_exec_time + total_plan_time desc limit 24`,
      );
      console.log(name);
      console.table(rows);
      await query(url, "select pg_stat_statements_reset()");
    };
  });
  console.log(measured);
} finally {
  await cluster.close();
}
process.exit(0);
