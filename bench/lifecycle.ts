/**
 * Runs per second through their whole life: due, materialized, pushed, accepted, completed, stored, acknowledged. Beside
 * it, on the same PostgreSQL in the same run: the same rows written by SQL alone (the floor), and job queues that run as
 * many no-op jobs in the process that holds the database.
 */
import { newToken } from "../src/ids.ts";
import type { Bench } from "./lib/bench.ts";
import { type Child, startChild } from "./lib/children.ts";
import { type Cluster, openCluster, query } from "./lib/cluster.ts";
import { cpuSeconds } from "./lib/cpu.ts";
import { atLeast, type Row, shown } from "./lib/report.ts";
import { makeDue, seedDevices, seedOrgs, seedWatchers } from "./lib/seed.ts";

const full = { runs: 20_000, devices: 1_000, orgs: 10 };
const smoke = { runs: 1_000, devices: 100, orgs: 5 };
const runsPerSecondWanted = 3_000;
const timesGraphileWanted = 1.3;

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const cluster = await openCluster();
  try {
    const opened = await openLifecycle(cluster, "lifecycle", options);
    // Two rounds warm up connections, plans and code; the third one counts.
    await runLifecycle(cluster, opened);
    await runLifecycle(cluster, opened);
    const pinion = await runLifecycle(cluster, opened);
    await opened.close();
    const floor = await measureReference(cluster, "floor", "references/floor.ts", options.runs, async () => {
      await makeDue(opened.url, new Date());
      return { url: opened.url };
    });
    const queues = [];
    for (const mode of ["plain", "local queue"]) {
      queues.push(
        await measureReference(
          cluster,
          `graphile-worker, ${mode}`,
          "references/graphile.ts",
          options.runs,
          async () => ({
            ...{ kind: "throughput", mode, jobs: options.runs },
            url: await cluster.database("graphile", { isEmpty: true }),
          }),
        ),
      );
    }
    queues.push(
      await measureReference(
        cluster,
        "pg-boss, 4 × 500",
        "references/pg-boss.ts",
        options.runs,
        async () => ({
          ...{ kind: "throughput", jobs: options.runs },
          url: await cluster.database("pgboss", { isEmpty: true }),
        }),
      ),
    );
    const row = (name: string, rate: number, cpu: Partial<LifecycleResult["cpu"]>): Row => ({
      "": name,
      "per second": rate,
      "Pinion is": `${shown(pinion.runsPerSecond / rate)} ×`,
      "server s/1000": cpu.server ?? "",
      "postgres s/1000": cpu.postgres ?? "",
      "load s/1000": cpu.load ?? "",
    });
    const plain = queues[0]!;
    const timesPlain = pinion.runsPerSecond / plain.runsPerSecond;
    return {
      options,
      rows: [
        row("Pinion, over streams", pinion.runsPerSecond, pinion.cpu),
        row("floor: its rows without streams", floor.runsPerSecond, floor.cpu),
        ...queues.map((queue) => row(queue.name, queue.runsPerSecond, queue.cpu)),
      ],
      budgets: [
        atLeast("runs per second", pinion.runsPerSecond, runsPerSecondWanted),
        atLeast("times graphile-worker in its plain mode", timesPlain, timesGraphileWanted),
      ],
    };
  } finally {
    await cluster.close();
  }
};

/** A reference in a process of its own, on the same PostgreSQL. */
async function measureReference(
  cluster: Cluster,
  name: string,
  file: string,
  jobs: number,
  prepare: () => Promise<Record<string, unknown>>,
) {
  const question = await prepare();
  const child = await startChild(file);
  const before = cpuSeconds(cluster.pid, { withChildren: true });
  const { seconds, cpuSeconds: own } = await child.ask<{ seconds: number; cpuSeconds: number }>(question);
  const postgres = cpuSeconds(cluster.pid, { withChildren: true }) - before;
  await child.kill();
  const per1000 = 1_000 / jobs;
  return {
    name,
    runsPerSecond: jobs / seconds,
    cpu: { server: own * per1000, postgres: postgres * per1000 },
  };
}

export type LifecycleOptions = { runs: number; devices: number; orgs: number; replicas?: number };

export type LifecycleResult = {
  runs: number;
  seconds: number;
  runsPerSecond: number;
  /** CPU seconds per 1,000 runs. */
  cpu: { server: number; postgres: number; load: number };
};

const withinMs = 150_000;
/** The schedules are moved by SQL, which nobody announces: replicas see it at their next sweep, well before it counts. */
const sweepMs = 2_000;
export const dueInMs = 3_000;
/** As the server asks for by default. */
const beatMs = 20_000;

/** Devices, watchers, replicas and the load, connected. */
export async function openLifecycle(cluster: Cluster, name: string, options: LifecycleOptions) {
  const url = await cluster.database(name);
  await seedOrgs(url, options.orgs);
  const devices = await seedDevices(url, {
    count: options.devices,
    orgs: options.orgs,
    slots: 1,
    tokenOf: () => newToken("dev"),
  });
  const watchers = await seedWatchers(url, Math.ceil(options.runs / options.devices));
  const replicas: Child[] = [];
  const urls: string[] = [];
  for (let index = 0; index < (options.replicas ?? 1); index++) {
    const replica = await startChild(
      "replica.ts",
      {
        DATABASE_URL: url,
        PINION_SWEEP_INTERVAL_MS: String(sweepMs),
      },
      process.env.BENCH_EXEC_ARGV?.split(" "),
    );
    replicas.push(replica);
    urls.push(await replica.ask<string>({ kind: "url" }));
  }
  const load = await startChild("load.ts");
  await load.ask({ kind: "connect", urls, devices, slots: 1, beatMs });
  return {
    url,
    watchers,
    replicas,
    load,
    async close() {
      await load.kill();
      for (const replica of replicas) {
        await replica.ask({ kind: "stop" });
        await replica.leave();
      }
    },
  };
}

type Opened = Awaited<ReturnType<typeof openLifecycle>>;

/** Makes every watcher due and waits until each run is acknowledged. */
export async function runLifecycle(cluster: Cluster, bench: Opened): Promise<LifecycleResult> {
  await bench.load.ask({ kind: "reset" });
  const cpuOf = () => ({
    server: bench.replicas.reduce((sum, replica) => sum + cpuSeconds(replica.pid), 0),
    postgres: cpuSeconds(cluster.pid, { withChildren: true }),
    load: cpuSeconds(bench.load.pid),
  });
  await query(bench.url, "checkpoint");
  const before = cpuOf();
  // A little ahead, so that the update itself is not part of what is measured.
  const dueAt = new Date(Date.now() + dueInMs);
  await makeDue(bench.url, dueAt);
  // What the update wrote is not what is measured either.
  const at = await bench.load.ask<number>({ kind: "acknowledged", count: bench.watchers, withinMs });
  const after = cpuOf();
  const seconds = (at - dueAt.getTime()) / 1_000;
  const per1000 = (kind: keyof typeof after) => ((after[kind] - before[kind]) / bench.watchers) * 1_000;
  return {
    runs: bench.watchers,
    seconds,
    runsPerSecond: bench.watchers / seconds,
    cpu: { server: per1000("server"), postgres: per1000("postgres"), load: per1000("load") },
  };
}
