/**
 * The lifecycle and the waits with 1, 2 and 4 replicas on one PostgreSQL, with the devices spread
 * over the replicas.
 */

import { measureWaits } from "./latency.ts";
import type { Bench } from "./lib/bench.ts";
import { openCluster } from "./lib/cluster.ts";
import { percentiles, poissonGaps } from "./lib/percentiles.ts";
import { atLeast, atMost, type Row } from "./lib/report.ts";
import { openLifecycle, runLifecycle } from "./lifecycle.ts";

const full = { replicas: [1, 2, 4], runs: 10_000, devices: 500, perSecond: 50, seconds: 15, seed: 20 };
const smoke = { replicas: [1, 2], runs: 500, devices: 50, perSecond: 20, seconds: 2, seed: 20 };

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const gaps = poissonGaps(options.perSecond, options.seed);
  const gapsMs = Array.from(
    { length: options.perSecond * options.seconds },
    () => gaps.next().value as number,
  );
  const cluster = await openCluster();
  try {
    const rows: Row[] = [];
    const measured: { rate: number; p99: number }[] = [];
    for (const replicas of options.replicas) {
      const opened = await openLifecycle(cluster, `replicas_${replicas}`, { ...options, orgs: 10, replicas });
      // Each replica's code is as warm as that of one alone: the devices share the runs.
      for (let round = 0; round < replicas; round++) await runLifecycle(cluster, opened);
      const { runsPerSecond, cpu } = await runLifecycle(cluster, opened);
      await opened.load.ask({ kind: "reset" });
      const { frames } = await measureWaits(opened, gapsMs);
      const waits = percentiles(frames.map((frame) => frame.at - frame.dueAt));
      await opened.close();
      measured.push({ rate: runsPerSecond, p99: waits.p99 });
      rows.push({
        replicas,
        "runs/s": runsPerSecond,
        "server s/1000": cpu.server,
        "postgres s/1000": cpu.postgres,
        "due to frame p50 ms": waits.p50,
        "p99 ms": waits.p99,
      });
    }
    const [one, ...more] = measured as [(typeof measured)[number], ...typeof measured];
    return {
      options,
      rows,
      budgets: [
        atMost(
          "due to frame p99, times that of one replica",
          Math.max(...more.map(({ p99 }) => p99)) / one.p99,
          1.5,
        ),
        atLeast(
          "runs per second, times those of one replica",
          Math.min(...more.map(({ rate }) => rate)) / one.rate,
          1,
        ),
      ],
    };
  } finally {
    await cluster.close();
  }
};
