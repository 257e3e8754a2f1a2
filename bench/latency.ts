/**
 * The waiting times of runs: due to frame, trigger to frame, completion to acknowledgement, at 100
 * runs per second that arrive as a Poisson process. References at the same arrivals: the start
 * delay of jobs in the queues, and a bare echo.
 */
import { newToken } from "../src/values/ids.ts";
import type { Bench } from "./lib/bench.ts";
import { startChild } from "./lib/children.ts";
import { openCluster, query } from "./lib/cluster.ts";
import { cpuSeconds } from "./lib/cpu.ts";
import { percentiles, poissonGaps } from "./lib/percentiles.ts";
import { atMost, type Row } from "./lib/report.ts";
import { startRiver } from "./lib/river.ts";
import { makeDueAt, seedServices } from "./lib/seed.ts";
import { dueInMs, openLifecycle } from "./lifecycle.ts";

const full = {
  ...{ devices: 1_000, perSecond: 100, warmSeconds: 10, seconds: 30, seed: 20 },
  ...{ warmTriggers: 200, triggers: 600 },
};
const smoke = {
  ...{ devices: 50, perSecond: 50, warmSeconds: 1, seconds: 3, seed: 20 },
  ...{ warmTriggers: 10, triggers: 50 },
};
const orgs = 10;
/** Triggers come less often by this factor: each trigger is a call with its own transaction. */
const triggerGaps = 5;
const withinMs = 60_000;

type Measured = { frames: { runId: string; dueAt: number; at: number }[]; acks: number[] };

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  // The first runs warm up connections, plans and code of all measured systems, and are not
  // counted.
  const warm = options.perSecond * options.warmSeconds;
  const count = warm + options.perSecond * options.seconds;
  const gaps = poissonGaps(options.perSecond, options.seed);
  const gapsMs = Array.from({ length: count }, () => gaps.next().value as number);
  const cluster = await openCluster();
  try {
    const opened = await openLifecycle(cluster, "latency", {
      devices: options.devices,
      orgs,
      runs: count,
    });
    let before = 0;
    const measured = await measureWaits(opened, gapsMs, () => {
      before = cpuSeconds(cluster.pid, { withChildren: true });
    });
    // Includes the seconds before the first due slot, because a service at this rate has such
    // seconds too.
    const postgresMs = ((cpuSeconds(cluster.pid, { withChildren: true }) - before) / count) * 1_000;
    const { triggers, warmTriggers } = options;
    const triggerGapsMs = gapsMs.slice(warm, warm + warmTriggers + triggers).map((gap) => gap * triggerGaps);
    const { waits, empty } = await measureTriggers(opened, triggerGapsMs);
    const triggered = byCaller(waits.slice(warmTriggers));
    const answered = byCaller(empty.slice(warmTriggers));
    const frames = measured.frames.toSorted((a, b) => a.dueAt - b.dueAt).slice(warm);
    await opened.close();

    const dueToFrame = percentiles(frames.map((frame) => frame.at - frame.dueAt));
    const completeToAck = percentiles(measured.acks.slice(warm));
    const { graphile, boss, river } = await referencesOf(cluster, { gapsMs, warm });
    const echo = percentiles((await echoes(options.devices, gapsMs)).slice(warm));

    return {
      options,
      rows: [
        row("Pinion: due to frame", dueToFrame),
        row("Pinion: trigger to frame", triggered.typed),
        row("an empty call and its answer", answered.typed),
        row("Pinion: trigger to frame, called on a bare connection", triggered.bare),
        row("an empty call on a bare connection", answered.bare),
        row("Pinion: completion to acknowledgement", completeToAck),
        row("graphile-worker: added to started", graphile),
        row("pg-boss: sent to started", boss),
        ...(river ? [row("River: inserted to started", river)] : []),
        row("a bare echo on the same streams", echo),
      ],
      budgets: [
        atMost("due to frame, p50 ms", dueToFrame.p50, 1.5),
        atMost("due to frame, p99 ms", dueToFrame.p99, 4.5),
        atMost("trigger to frame, p50 ms", triggered.typed.p50, 4),
        atMost("trigger to frame, p99 ms", triggered.typed.p99, 10),
        atMost("completion to acknowledgement, p99 ms", completeToAck.p99, 12),
        atMost("PostgreSQL, ms a run", postgresMs, 0.8),
        ...(river ? [atMost("due to frame p99, times River's", dueToFrame.p99 / river.p99, 1)] : []),
      ],
    };
  } finally {
    await cluster.close();
  }
};

function row(name: string, { p50, p99, max }: ReturnType<typeof percentiles>): Row {
  return { milliseconds: name, p50, p99, max };
}

/** The waits of the typed client's calls, and of the calls on a bare connection between them. */
export function byCaller(waits: readonly number[]) {
  return {
    typed: percentiles(waits.filter((_, index) => index % 2 === 0)),
    bare: percentiles(waits.filter((_, index) => index % 2 === 1)),
  };
}

/** The waits of other queues, at the same moments on the same cluster. */
async function referencesOf(
  cluster: Awaited<ReturnType<typeof openCluster>>,
  load: { gapsMs: number[]; warm: number },
) {
  const url = (name: string) => cluster.database(name, { isEmpty: true });
  return {
    graphile: await waitsOf("references/graphile.ts", { ...load, url: await url("graphile") }),
    boss: await waitsOf("references/pg-boss.ts", { ...load, url: await url("pgboss") }),
    river: await riverWaits({ ...load, url: await url("river") }),
  };
}

/**
 * Makes the watchers due one after the other, and collects the moments seen by the devices.
 * `onDue`: the watchers' rows have been changed, which is no part of any measurement.
 */
export async function measureWaits(
  opened: Awaited<ReturnType<typeof openLifecycle>>,
  gapsMs: readonly number[],
  onDue?: () => void,
): Promise<Measured> {
  let at = Date.now() + dueInMs;
  await makeDueAt(
    opened.url,
    gapsMs.map((gap) => {
      at += gap;
      return new Date(at);
    }),
  );
  onDue?.();
  await opened.load.ask({ kind: "acknowledged", count: gapsMs.length, withinMs });
  return opened.load.ask<Measured>({ kind: "measurements" });
}

/**
 * Triggers watchers that have run before; returns the time from each call to its frame, in the
 * order of the calls, and what as many empty calls of the same process take: a trigger's call has
 * that much in it that is no trigger's.
 */
export async function measureTriggers(
  opened: Awaited<ReturnType<typeof openLifecycle>>,
  gapsMs: readonly number[],
) {
  const services = await seedServices(opened.url, orgs, () => newToken("svc"));
  const { rows: watchers } = await query(
    opened.url,
    'select org_id as "orgId", id from watcher order by id limit $1',
    [gapsMs.length],
  );
  await opened.load.ask({ kind: "reset" });
  const callers = await startChild("callers.ts");
  const asked = await callers.ask<{ runId: string; at: number }[]>({
    ...{ kind: "trigger", url: opened.replicaUrl, services, watchers, gapsMs, isInTurns: true },
  });
  await opened.load.ask({ kind: "acknowledged", count: gapsMs.length, withinMs });
  const { frames } = await opened.load.ask<Measured>({ kind: "measurements" });
  const url = opened.replicaUrl;
  const empty = await callers.ask<number[]>({ kind: "empty", url, services, gapsMs, isInTurns: true });
  await callers.kill();
  const frameAt = new Map(frames.map((frame) => [frame.runId, frame.at]));
  const waits = asked.toSorted((a, b) => a.at - b.at).map(({ runId, at }) => frameAt.get(runId)! - at);
  return { waits, empty };
}

async function waitsOf(file: string, { gapsMs, warm, url }: { gapsMs: number[]; warm: number; url: string }) {
  const child = await startChild(file);
  const waits = await child.ask<number[]>({ kind: "latency", url, gapsMs });
  await child.kill();
  return percentiles(waits.slice(warm));
}

async function riverWaits({ gapsMs, warm, url }: { gapsMs: number[]; warm: number; url: string }) {
  const child = await startRiver();
  const waits = await child?.ask<number[]>({ kind: "latency", url, gapsMs });
  await child?.kill();
  return waits && percentiles(waits.slice(warm));
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
