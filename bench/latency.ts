/**
 * How long runs wait: due to frame, commit to frame, completion to acknowledgement, at 100 runs a second that arrive as a
 * Poisson process. Beside it, at the same arrivals: how long jobs of the queues wait to start, and a bare echo.
 */
import type { Bench } from "./lib/bench.ts";
import { startChild } from "./lib/children.ts";
import { openCluster, query } from "./lib/cluster.ts";
import { percentiles, poissonGaps } from "./lib/percentiles.ts";
import { atMost, type Row } from "./lib/report.ts";
import { makeDueAt } from "./lib/seed.ts";
import { dueInMs, openLifecycle } from "./lifecycle.ts";

const full = { devices: 1_000, perSecond: 100, warmSeconds: 10, seconds: 30, seed: 20 };
const smoke = { devices: 50, perSecond: 50, warmSeconds: 1, seconds: 3, seed: 20 };
const withinMs = 60_000;

type Measured = { frames: { runId: string; dueAt: number; at: number }[]; acks: number[] };

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  // What comes first warms up connections, plans and code, of all who are measured, and is not counted.
  const warm = options.perSecond * options.warmSeconds;
  const count = warm + options.perSecond * options.seconds;
  const gaps = poissonGaps(options.perSecond, options.seed);
  const gapsMs = Array.from({ length: count }, () => gaps.next().value as number);
  const cluster = await openCluster();
  try {
    const opened = await openLifecycle(cluster, "latency", {
      devices: options.devices,
      orgs: 10,
      runs: count,
    });
    const measured = await measureWaits(opened, gapsMs);
    const frames = measured.frames.sort((a, b) => a.dueAt - b.dueAt).slice(warm);
    const { rows } = await query(
      opened.url,
      "select run_id, (extract(epoch from pg_xact_commit_timestamp(xmin)) * 1000)::float8 as at from slot",
    );
    const committedAt = new Map(rows.map((row) => [row.run_id as string, row.at as number]));
    await opened.close();

    const dueToFrame = percentiles(frames.map((frame) => frame.at - frame.dueAt));
    const commitToFrame = percentiles(frames.map((frame) => frame.at - committedAt.get(frame.runId)!));
    const completeToAck = percentiles(measured.acks.slice(warm));
    const graphile = await waitsOf("references/graphile.ts", {
      ...{ gapsMs, warm },
      url: await cluster.database("graphile", { isEmpty: true }),
    });
    const boss = await waitsOf("references/pg-boss.ts", {
      ...{ gapsMs, warm },
      url: await cluster.database("pgboss", { isEmpty: true }),
    });
    const echo = percentiles((await echoes(options.devices, gapsMs)).slice(warm));

    const row = (name: string, { p50, p99, max }: typeof echo): Row => ({
      milliseconds: name,
      p50,
      p99,
      max,
    });
    return {
      options,
      rows: [
        row("Pinion: due to frame", dueToFrame),
        row("Pinion: commit to frame", commitToFrame),
        row("Pinion: completion to acknowledgement", completeToAck),
        row("graphile-worker: added to started", graphile),
        row("pg-boss: sent to started", boss),
        row("a bare echo on the same streams", echo),
      ],
      budgets: [
        atMost("due to frame, p50 ms", dueToFrame.p50, 5),
        atMost("due to frame, p99 ms", dueToFrame.p99, 25),
        atMost("completion to acknowledgement, p99 ms", completeToAck.p99, 25),
        atMost("due to frame p99, times graphile-worker's", dueToFrame.p99 / graphile.p99, 1),
        atMost("due to frame p50, times pg-boss's", dueToFrame.p50 / boss.p50, 1),
      ],
    };
  } finally {
    await cluster.close();
  }
};

/** Makes the watchers due one after the other, and collects what the devices saw. */
export async function measureWaits(
  opened: Awaited<ReturnType<typeof openLifecycle>>,
  gapsMs: readonly number[],
): Promise<Measured> {
  let at = Date.now() + dueInMs;
  await makeDueAt(
    opened.url,
    gapsMs.map((gap) => {
      at += gap;
      return new Date(at);
    }),
  );
  await opened.load.ask({ kind: "acknowledged", count: gapsMs.length, withinMs });
  return opened.load.ask<Measured>({ kind: "measurements" });
}

async function waitsOf(file: string, { gapsMs, warm, url }: { gapsMs: number[]; warm: number; url: string }) {
  const child = await startChild(file);
  const waits = await child.ask<number[]>({ kind: "latency", url, gapsMs });
  await child.kill();
  return percentiles(waits.slice(warm));
}

async function echoes(count: number, gapsMs: number[]): Promise<number[]> {
  const server = await startChild("lib/echo.ts");
  const load = await startChild("echo-load.ts");
  await load.ask({ kind: "connect", url: await server.ask<string>({ kind: "url" }), count });
  const took = await load.ask<number[]>({ kind: "echo", gapsMs });
  await load.kill();
  await server.kill();
  return took;
}
