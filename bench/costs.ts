/**
 * The costs of one run, one device, one heartbeat, one connect and one watcher, for the formulas of
 * docs/scaling.md. A run's costs are measured under load, where batches are large; at a few runs
 * per second, a run costs several times as much CPU, but the CPU is mostly idle then.
 */
import pg from "pg";
import { newToken } from "../src/values/ids.ts";
import type { Bench } from "./lib/bench.ts";
import { startChild } from "./lib/children.ts";
import { type Cluster, openCluster, query } from "./lib/cluster.ts";
import { cpuSeconds, residentKiB } from "./lib/cpu.ts";
import { percentiles } from "./lib/percentiles.ts";
import { seedDevices, seedOrgs, seedWatchers } from "./lib/seed.ts";
import { openLifecycle, runLifecycle } from "./lifecycle.ts";

const full = {
  runs: 20_000,
  devices: 1_000,
  fleet: 5_000,
  beatMs: 2_000,
  windowMs: 20_000,
  watchers: 100_000,
};
const smoke = { runs: 500, devices: 50, fleet: 100, beatMs: 500, windowMs: 2_000, watchers: 1_000 };
const orgs = 10;
const lookEveryMs = 100;
/**
 * Connections that notify at once, and connections that listen, as many as the replicas of a larger
 * service hold.
 */
const notifiers = 4;
const listeners = 4;

type Options = typeof full;

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const cluster = await openCluster();
  try {
    const run = await measureRun(cluster, options);
    const device = await measureDevice(cluster, options);
    const watcherKiB = await measureWatcher(cluster, options);
    const bus = await measureNotify(cluster, isSmoke ? 1_000 : 5_000);
    const row = (name: string, value: number, unit: string) => ({ "": name, value, unit });
    return {
      options,
      rows: [
        row("C_run: PostgreSQL CPU of a run", run.postgresMs, "ms"),
        row("R_run: replica CPU of a run", run.replicaMs, "ms"),
        row("W_run: WAL of a run", run.walKiB, "KiB"),
        row("D_run: disk of an ended run", run.diskKiB, "KiB"),
        row("M_device: replica memory of an idle stream", device.memoryKiB, "KiB"),
        row("R_beat: replica CPU of a heartbeat", device.replicaBeatUs, "µs"),
        row("C_beat: PostgreSQL CPU of a heartbeat", device.postgresBeatUs, "µs"),
        row("W_beat: WAL of a heartbeat", device.walBeatBytes, "bytes"),
        row("C_connect: PostgreSQL CPU of a connect", device.postgresConnectMs, "ms"),
        row("R_connect: replica CPU of a connect", device.replicaConnectMs, "ms"),
        row("D_watcher: disk of a watcher", watcherKiB, "KiB"),
        row("N_notify: notifications of PostgreSQL", bus.perSecond, "1/s"),
        row("L_bus: from commit to a listener, p50", bus.p50, "ms"),
        row("L_bus: p99", bus.p99, "ms"),
      ],
      budgets: [],
    };
  } finally {
    await cluster.close();
  }
};

async function measureRun(cluster: Cluster, options: Options) {
  const opened = await openLifecycle(cluster, "costs_run", { ...options, orgs });
  await runLifecycle(cluster, opened);
  const before = { wal: await walBytes(opened.url), disk: await diskBytes(opened.url) };
  const { cpu, runs } = await runLifecycle(cluster, opened);
  const walKiB = ((await walBytes(opened.url)) - before.wal) / 1024 / runs;
  const diskKiB = ((await diskBytes(opened.url)) - before.disk) / 1024 / runs;
  await opened.close();
  // CPU seconds of 1,000 operations equal milliseconds of a single operation.
  return { postgresMs: cpu.postgres, replicaMs: cpu.server, walKiB, diskKiB };
}

async function measureDevice(cluster: Cluster, options: Options) {
  const url = await cluster.database("costs_device");
  await seedOrgs(url, orgs);
  const devices = await seedDevices(url, {
    ...{ count: options.fleet, orgs, slots: 1 },
    tokenOf: () => newToken("dev"),
  });
  const replica = await startChild("replica.ts", { DATABASE_URL: url }, ["--expose-gc"]);
  const urls = [await replica.ask<string>({ kind: "url" })];
  await replica.ask({ kind: "gc" });
  const emptyKiB = residentKiB(replica.pid);
  const { beatMs } = options;
  const connect = async () => {
    const load = await startChild("load.ts");
    await load.ask({ kind: "connect", urls, devices, slots: 1, beatMs });
    return load;
  };
  const look = async () => ({
    postgres: cpuSeconds(cluster.pid, { withChildren: true }),
    replica: cpuSeconds(replica.pid),
    wal: await walBytes(url),
  });
  const first = await connect();
  await replica.ask({ kind: "gc" });
  const memoryKiB = (residentKiB(replica.pid) - emptyKiB) / options.fleet;
  await first.kill();
  await untilAway(url);
  // A connect is nearly always that of a device that was there before.
  const start = await look();
  const load = await connect();
  const connected = await look();
  // The first beats are spread over an interval.
  await passes(beatMs);
  await load.ask({ kind: "reset" });
  const before = await look();
  await passes(options.windowMs);
  const after = await look();
  const { beats } = await load.ask<{ beats: number[] }>({ kind: "measurements" });
  await load.kill();
  await replica.kill();
  return {
    memoryKiB,
    postgresConnectMs: ((connected.postgres - start.postgres) * 1e3) / options.fleet,
    replicaConnectMs: ((connected.replica - start.replica) * 1e3) / options.fleet,
    postgresBeatUs: ((after.postgres - before.postgres) * 1e6) / beats.length,
    replicaBeatUs: ((after.replica - before.replica) * 1e6) / beats.length,
    walBeatBytes: (after.wal - before.wal) / beats.length,
  };
}

async function untilAway(url: string): Promise<void> {
  const text = "select count(*)::int as count from presence where disconnected_at is null";
  while ((await query(url, text)).rows[0].count > 0) await passes(lookEveryMs);
}

async function measureWatcher(cluster: Cluster, options: Options): Promise<number> {
  const url = await cluster.database("costs_watcher");
  await seedOrgs(url, orgs);
  await seedDevices(url, { count: options.devices, orgs, slots: 1, tokenOf: () => newToken("dev") });
  const before = await diskBytes(url);
  const watchers = await seedWatchers(url, Math.ceil(options.watchers / options.devices));
  return ((await diskBytes(url)) - before) / 1024 / watchers;
}

/**
 * The number of notifications per second that one PostgreSQL commits and hands to its listeners,
 * and the latency of a notification on an idle database.
 */
async function measureNotify(cluster: Cluster, windowMs: number) {
  const connectionString = await cluster.database("costs_notify", { isEmpty: true });
  const connect = async () => {
    const client = new pg.Client({ connectionString });
    await client.connect();
    return client;
  };
  const listening = await Promise.all(Array.from({ length: listeners }, connect));
  for (const [index, client] of listening.entries()) await client.query(`listen replica_${index}`);
  const notifying = await Promise.all(Array.from({ length: notifiers }, connect));

  const waits: number[] = [];
  for (let count = 0; count < 200; count++) {
    const heard = new Promise((resolve) => listening[0]!.once("notification", resolve));
    const startedAt = performance.now();
    await notifying[0]!.query("notify replica_0, 'quiet'");
    await heard;
    waits.push(performance.now() - startedAt);
  }
  let sent = 0;
  const until = performance.now() + windowMs;
  await Promise.all(
    notifying.map(async (client) => {
      while (performance.now() < until) await client.query(`notify replica_${sent++ % listeners}, 'busy'`);
    }),
  );
  for (const client of [...listening, ...notifying]) await client.end();
  const { p50, p99 } = percentiles(waits);
  return { perSecond: sent / (windowMs / 1_000), p50, p99 };
}

async function walBytes(url: string): Promise<number> {
  const { rows } = await query(url, "select (pg_current_wal_lsn() - '0/0')::float8 as bytes");
  return rows[0].bytes as number;
}

async function diskBytes(url: string): Promise<number> {
  const { rows } = await query(url, "select pg_database_size(current_database())::float8 as bytes");
  return rows[0].bytes as number;
}

function passes(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
