/**
 * Runs per second through their whole life: due, materialized, pushed, accepted, completed, stored, acknowledged. Beside
 * it, on the same PostgreSQL in the same run: the same rows written by SQL alone (the floor), and job queues that run as
 * many no-op jobs in the process that holds the database.
 */
import { newToken } from "../src/ids.ts";
import { type Child, startChild } from "./lib/children.ts";
import { type Cluster, query } from "./lib/cluster.ts";
import { cpuSeconds } from "./lib/cpu.ts";
import { makeDue, seedDevices, seedOrgs, seedWatchers } from "./lib/seed.ts";

export type LifecycleOptions = { runs: number; devices: number; orgs: number; replicas?: number };

export type LifecycleResult = {
  runs: number;
  seconds: number;
  runsPerSecond: number;
  /** CPU seconds per 1,000 runs. */
  cpu: { server: number; postgres: number; load: number };
};

const withinMs = 150_000;

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
    const replica = await startChild("replica.ts", { DATABASE_URL: url });
    replicas.push(replica);
    urls.push(await replica.ask<string>({ kind: "url" }));
  }
  const load = await startChild("load.ts");
  await load.ask({ kind: "connect", urls, devices, slots: 1 });
  return {
    url,
    watchers,
    replicas,
    load,
    async close() {
      await load.kill();
      for (const replica of replicas) {
        await replica.ask({ kind: "stop" });
        await replica.kill();
      }
    },
  };
}

type Bench = Awaited<ReturnType<typeof openLifecycle>>;

/** Makes every watcher due and waits until each run is acknowledged. */
export async function runLifecycle(cluster: Cluster, bench: Bench): Promise<LifecycleResult> {
  await bench.load.ask({ kind: "reset" });
  const cpuOf = () => ({
    server: bench.replicas.reduce((sum, replica) => sum + cpuSeconds(replica.pid), 0),
    postgres: cpuSeconds(cluster.pid, { withChildren: true }),
    load: cpuSeconds(bench.load.pid),
  });
  await query(bench.url, "checkpoint");
  const before = cpuOf();
  // A little ahead, so that the update itself is not part of what is measured.
  const dueAt = new Date(Date.now() + 2_000);
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
