/**
 * The statements behind `latency`: runs that come alone, and triggers. Prints the waits, the CPU of
 * PostgreSQL and of the replica, and the dearest statements. `node bench/profile-latency.ts 1000
 * 15`: so many devices, for so many seconds; 0 for triggers alone. `TRIGGERS_PROFILE=FILE` writes a
 * profile of the replica's CPU during the triggers, the first quarter left out.
 */

import { byCaller, measureTriggers, measureWaits } from "./latency.ts";
import { openCluster, query } from "./lib/cluster.ts";
import { cpuSeconds } from "./lib/cpu.ts";
import { percentiles, poissonGaps } from "./lib/percentiles.ts";
import { openLifecycle } from "./lifecycle.ts";

const devices = Number(process.argv[2] ?? 1_000);
const seconds = Number(process.argv[3] ?? 15);
const perSecond = 100;
const triggers = Number(process.argv[4] ?? 200);
const triggerGapMs = 50;

const gapsOf = (rate: number, count: number) => {
  const gaps = poissonGaps(rate, 20);
  return Array.from({ length: count }, () => gaps.next().value as number);
};

/**
 * A visit of autovacuum drops the kept plans of all statements with the table: the next use on each
 * connection plans again.
 */
const visits = `select relname, autovacuum_count as vacuumed, autoanalyze_count as analyzed from pg_stat_user_tables
  where autovacuum_count + autoanalyze_count > 0 order by 1`;

const cluster = await openCluster({
  shared_preload_libraries: "pg_stat_statements",
  "pg_stat_statements.track_planning": "on",
});
try {
  const count = perSecond * seconds;
  const opened = await openLifecycle(cluster, "latency", {
    devices,
    orgs: 10,
    runs: Math.max(2 * count, triggers),
  });
  await query(opened.url, "create extension pg_stat_statements");
  const cpu = () => ({
    postgres: cpuSeconds(cluster.pid, { withChildren: true }),
    replica: cpuSeconds(opened.replicas[0]!.pid),
  });
  const report = async (name: string, runs: number, work: () => Promise<object>) => {
    await query(opened.url, "select pg_stat_statements_reset()");
    const before = cpu();
    const waits = await work();
    const after = cpu();
    console.log(name, waits, {
      "PostgreSQL, ms a run": ((after.postgres - before.postgres) / runs) * 1_000,
      "replica, ms a run": ((after.replica - before.replica) / runs) * 1_000,
    });
    const { rows } = await query(
      opened.url,
      `select calls, round(total_exec_time) as exec, round(total_plan_time) as plan, plans,
        round((total_exec_time + total_plan_time)::numeric / greatest(calls, 1), 2) as each,
        left(regexp_replace(query, '\\s+', ' ', 'g'), 120) as q
      from pg_stat_statements order by total_exec_time + total_plan_time desc limit 16`,
    );
    console.table(rows);
    console.table((await query(opened.url, visits)).rows);
  };
  const waits = async (gapsMs: number[]) => {
    await opened.load.ask({ kind: "reset" });
    const { frames, acks } = await measureWaits(opened, gapsMs);
    return {
      due: percentiles(frames.map((frame) => frame.at - frame.dueAt)),
      acks: percentiles(acks),
    };
  };
  if (count > 0) {
    await report("the first runs", count, () => waits(gapsOf(perSecond, count)));
    await report("the next runs", count, () => waits(gapsOf(perSecond, count)));
  }
  const trigger = async (more: number) =>
    measureTriggers(opened, gapsOf(1_000 / triggerGapMs, more)).then(({ waits, empty }) => ({
      triggered: byCaller(waits),
      empty: byCaller(empty),
    }));
  await report("the first triggers", Math.ceil(triggers / 4), () => trigger(Math.ceil(triggers / 4)));
  const path = process.env.TRIGGERS_PROFILE;
  if (path) await opened.replicas[0]!.ask({ kind: "profile" });
  await report("the next triggers", triggers, () => trigger(triggers));
  if (path) await opened.replicas[0]!.ask({ kind: "profiled", path });
  await opened.close();
} finally {
  await cluster.close();
}
process.exit(0);
