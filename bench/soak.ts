/**
 * Whether the speed stays constant: rounds of `lifecycle` without a pause, on a PostgreSQL that
 * makes its checkpoints by itself. Prints runs per second in the second minute and in the last
 * minute, and the replica's memory in both.
 */
import type { Bench } from "./lib/bench.ts";
import { openCluster } from "./lib/cluster.ts";
import { residentKiB } from "./lib/cpu.ts";
import { atLeast, atMost } from "./lib/report.ts";
import { type LifecycleResult, openLifecycle, runLifecycle } from "./lifecycle.ts";

const full = { runs: 20_000, devices: 1_000, orgs: 10, parts: 10, partSeconds: 60 };
const smoke = { runs: 500, devices: 50, orgs: 5, parts: 3, partSeconds: 1 };
const throughputKept = 0.97;
const memoryMiBMax = 350;

/** The totals of a minute: the rounds alone, without the waits between them. */
type Part = { runsPerSecond: number; memoryMiB: number; cpu: number };

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const cluster = await openCluster();
  try {
    const opened = await openLifecycle(cluster, "soak", options);
    const parts: Part[] = [];
    for (let part = 0; part < options.parts; part++) {
      const rounds: LifecycleResult[] = [];
      const until = performance.now() + options.partSeconds * 1_000;
      do rounds.push(await runLifecycle(cluster, opened, { hasCheckpoint: false }));
      while (performance.now() < until);
      const sum = (value: (round: LifecycleResult) => number) =>
        rounds.reduce((all, one) => all + value(one), 0);
      parts.push({
        runsPerSecond: sum((round) => round.runs) / sum((round) => round.seconds),
        memoryMiB: residentKiB(opened.replicas[0]!.pid) / 1_024,
        cpu: sum((round) => round.cpu.server + round.cpu.postgres) / rounds.length,
      });
    }
    await opened.close();
    const [second, last] = [parts[1]!, parts.at(-1)!];
    return {
      options,
      rows: parts.map((part, index) => ({
        minute: index + 1,
        "per second": part.runsPerSecond,
        "server + postgres s/1000": part.cpu,
        "replica MiB": part.memoryMiB,
      })),
      budgets: [
        atLeast(
          "the last minute's runs a second, times the second's",
          last.runsPerSecond / second.runsPerSecond,
          throughputKept,
        ),
        atMost("memory of the replica, MiB", Math.max(...parts.map((part) => part.memoryMiB)), memoryMiBMax),
      ],
    };
  } finally {
    await cluster.close();
  }
};
