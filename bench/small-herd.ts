/**
 * Nine o'clock in a team: each device has a run due in the same second. Measures the time until the
 * first frame, and until the others.
 */
import type { Bench } from "./lib/bench.ts";
import { openCluster } from "./lib/cluster.ts";
import { type Percentiles, percentiles } from "./lib/percentiles.ts";
import { atMost } from "./lib/report.ts";
import { makeDue } from "./lib/seed.ts";
import { dueInMs, openLifecycle } from "./lifecycle.ts";

const full = { devices: 1_000, runs: 1_000, orgs: 10, rounds: 5 };
const smoke = { devices: 50, runs: 50, orgs: 5, rounds: 2 };
const withinMs = 60_000;

type Measured = { frames: { runId: string; dueAt: number; at: number }[] };

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const cluster = await openCluster();
  try {
    const opened = await openLifecycle(cluster, "small_herd", options);
    const rounds: (Percentiles & { first: number })[] = [];
    for (let round = 0; round < options.rounds; round++) {
      await opened.load.ask({ kind: "reset" });
      await makeDue(opened.url, new Date(Date.now() + dueInMs));
      await opened.load.ask({ kind: "acknowledged", count: opened.watchers, withinMs });
      const { frames } = await opened.load.ask<Measured>({ kind: "measurements" });
      const waits = frames.map((frame) => frame.at - frame.dueAt);
      rounds.push({ first: Math.min(...waits), ...percentiles(waits) });
    }
    await opened.close();
    // The first round warms up code and plans.
    const counted = rounds.slice(1);
    const worst = (of: (round: (typeof rounds)[number]) => number) => Math.max(...counted.map(of));
    return {
      options,
      rows: counted.map(({ first, p50, p99, max }, round) => ({
        round: round + 1,
        "first, ms": first,
        p50,
        p99,
        max,
      })),
      budgets: [
        atMost(
          "the first frame after, ms",
          worst((round) => round.first),
          2,
        ),
        atMost(
          "p99, ms",
          worst((round) => round.p99),
          40,
        ),
      ],
    };
  } finally {
    await cluster.close();
  }
};
