/**
 * Runs per second through their whole life: due, materialized, pushed, accepted, completed, stored,
 * acknowledged. References on the same PostgreSQL in the same run: the same rows written by SQL
 * alone (the floor), and job queues that run as many no-op jobs in the process that holds the
 * database, each with a result row; the adding of their jobs is measured separately.
 */
import { newToken } from "../src/values/ids.ts";
import type { Bench } from "./lib/bench.ts";
import { type Child, startChild } from "./lib/children.ts";
import { type Cluster, openCluster, query } from "./lib/cluster.ts";
import { cpuSeconds } from "./lib/cpu.ts";
import { atLeast, atMost, type Row, shown } from "./lib/report.ts";
import { startRiver } from "./lib/river.ts";
import { makeDue, seedDevices, seedOrgs, seedWatchers } from "./lib/seed.ts";

const full = { runs: 20_000, devices: 1_000, orgs: 10 };
const smoke = { runs: 1_000, devices: 100, orgs: 5 };
const runsPerSecondWanted = 5_500;
const cpuPer1000Wanted = 0.27;
const timesGraphileLocalWanted = 0.85;
const timesRiverWanted = 0.95;
const walKiBWanted = 2.5;
const graphileLocalName = "graphile-worker, local queue";
const riverName = "River, 500 workers";

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const cluster = await openCluster();
  try {
    const opened = await openLifecycle(cluster, "lifecycle", options);
    // Two rounds warm up connections, plans and code; the third round counts.
    await runLifecycle(cluster, opened);
    await runLifecycle(cluster, opened);
    const pinion = await runLifecycle(cluster, opened);
    await opened.close();
    const floor = await measureFloor(cluster, opened, options.runs);
    const queues = await measureQueues(cluster, options.runs);
    const timesOf = (name: string) => {
      const queue = queues.find((one) => one.name === name);
      return queue && pinion.runsPerSecond / queue.runsPerSecond;
    };
    const timesRiver = timesOf(riverName);
    return {
      options,
      rows: [
        row(pinion.runsPerSecond, { ...pinion, name: "Pinion, over streams" }),
        {
          "": "the same, from the moment they are due",
          "per second": pinion.runsPerSecondSinceDue,
          "Pinion is": "",
        },
        row(pinion.runsPerSecond, floor),
        ...queues.map((queue) => row(pinion.runsPerSecond, queue)),
      ],
      budgets: [
        atLeast("runs per second", pinion.runsPerSecond, runsPerSecondWanted),
        atMost("server + PostgreSQL, s/1000", pinion.cpu.server + pinion.cpu.postgres, cpuPer1000Wanted),
        atLeast("times graphile-worker's local queue", timesOf(graphileLocalName)!, timesGraphileLocalWanted),
        ...(timesRiver === undefined
          ? []
          : [atLeast("times River with a result row", timesRiver, timesRiverWanted)]),
        atMost("WAL, KiB a run", pinion.walKiB, walKiBWanted),
      ],
    };
  } finally {
    await cluster.close();
  }
};

type Measured = Pick<LifecycleResult, "runsPerSecond" | "walKiB"> & {
  name: string;
  cpu: Partial<LifecycleResult["cpu"]>;
  /**
   * The cost of adding the jobs, in both processes; for Pinion, adding the runs is part of the
   * measurement.
   */
  addingPer1000?: number;
};

function row(reference: number, { name, runsPerSecond, cpu, addingPer1000, walKiB }: Measured): Row {
  const all = (cpu.server ?? 0) + (cpu.postgres ?? 0) + (addingPer1000 ?? 0);
  return {
    "": name,
    "per second": runsPerSecond,
    "Pinion is": `${shown(reference / runsPerSecond)} ×`,
    "server s/1000": cpu.server ?? "",
    "postgres s/1000": cpu.postgres ?? "",
    "adding s/1000": addingPer1000 ?? "",
    "all s/1000": all,
    "WAL KiB": walKiB,
    "load s/1000": cpu.load ?? "",
  };
}

/** The rows of as many runs by SQL alone, in a separate process, on the same PostgreSQL. */
async function measureFloor(cluster: Cluster, opened: Opened, jobs: number): Promise<Measured> {
  await makeDue(opened.url, new Date());
  const child = await startChild("references/floor.ts");
  const floor = await observed(cluster, child, { url: opened.url }, jobs);
  await child.kill();
  return { ...floor, name: "floor: its rows without streams" };
}

async function measureQueues(cluster: Cluster, jobs: number): Promise<Measured[]> {
  const measured: Measured[] = [];
  const measure = async (name: string, child: Child, question: Record<string, unknown> = {}) => {
    const url = await cluster.database(`queue_${measured.length}`, { isEmpty: true });
    const adding = await observed(cluster, child, { kind: "prepare", url, jobs }, jobs);
    await query(url, "checkpoint");
    const working = await observed(cluster, child, { ...question, kind: "throughput", url, jobs }, jobs);
    await child.kill();
    measured.push({
      ...working,
      name,
      walKiB: adding.walKiB + working.walKiB,
      addingPer1000: adding.cpu.server! + adding.cpu.postgres!,
    });
  };
  await measure("graphile-worker, plain", await startChild("references/graphile.ts"), { mode: "plain" });
  await measure(graphileLocalName, await startChild("references/graphile.ts"), { mode: "local queue" });
  await measure("pg-boss, 4 × 500", await startChild("references/pg-boss.ts"));
  const river = await startRiver();
  if (river) await measure(riverName, river);
  return measured;
}

/** Sends the question, and returns the resources used for the answer. */
async function observed(
  cluster: Cluster,
  child: Child,
  question: Record<string, unknown> & { url: string },
  jobs: number,
): Promise<Omit<Measured, "name">> {
  const walBefore = await walBytes(question.url);
  const before = cpuSeconds(cluster.pid, { withChildren: true });
  const { seconds, cpuSeconds: own } = await child.ask<{ seconds: number; cpuSeconds: number }>(question);
  const postgres = cpuSeconds(cluster.pid, { withChildren: true }) - before;
  const per1000 = 1_000 / jobs;
  return {
    runsPerSecond: jobs / seconds,
    cpu: { server: own * per1000, postgres: postgres * per1000 },
    walKiB: ((await walBytes(question.url)) - walBefore) / 1_024 / jobs,
  };
}

async function walBytes(url: string): Promise<number> {
  const { rows } = await query(url, "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::float8 as bytes");
  return rows[0].bytes as number;
}

export type LifecycleOptions = { runs: number; devices: number; orgs: number; replicas?: number };

export type LifecycleResult = {
  runs: number;
  /** From the first row of a run to the last acknowledgement; rows recorded ahead count. */
  seconds: number;
  runsPerSecond: number;
  /** From the moment at which all runs are due. */
  runsPerSecondSinceDue: number;
  walKiB: number;
  /** CPU seconds per 1,000 runs. */
  cpu: { server: number; postgres: number; load: number };
};

const withinMs = 150_000;
/**
 * The schedules are moved by SQL without a notification: replicas see the change at their next
 * sweep, well before the measurement.
 */
const sweepMs = 2_000;
/** Longer than a sweep, the update itself, and the time that recording all of them takes. */
export const dueInMs = 5_000;
/** The server's default interval. */
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
      process.env.BENCH_EXEC_ARGV?.split(" ").filter(Boolean),
    );
    replicas.push(replica);
    urls.push(await replica.ask<string>({ kind: "url" }));
  }
  const load = await startChild("load.ts");
  await load.ask({ kind: "connect", urls, devices, slots: 1, beatMs });
  return {
    url,
    replicaUrl: urls[0]!,
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

/**
 * Makes every watcher due and waits until each run is acknowledged. A checkpoint before gives every
 * round the same full images of pages; without one, PostgreSQL makes its checkpoints by itself.
 */
export async function runLifecycle(
  cluster: Cluster,
  bench: Opened,
  { hasCheckpoint = true } = {},
): Promise<LifecycleResult> {
  await bench.load.ask({ kind: "reset" });
  const cpuOf = () => ({
    server: bench.replicas.reduce((sum, replica) => sum + cpuSeconds(replica.pid), 0),
    postgres: cpuSeconds(cluster.pid, { withChildren: true }),
    load: cpuSeconds(bench.load.pid),
  });
  if (hasCheckpoint) await query(bench.url, "checkpoint");
  // A little ahead, so that the update itself is not measured: neither its time nor its cost.
  const dueAt = new Date(Date.now() + dueInMs);
  await makeDue(bench.url, dueAt);
  const before = cpuOf();
  const walBefore = await walBytes(bench.url);
  const at = await bench.load.ask<number>({ kind: "acknowledged", count: bench.watchers, withinMs });
  const after = cpuOf();
  const seconds = (at - (await firstCreatedMs(bench.url, dueAt))) / 1_000;
  const per1000 = (kind: keyof typeof after) => ((after[kind] - before[kind]) / bench.watchers) * 1_000;
  return {
    runs: bench.watchers,
    seconds,
    runsPerSecond: bench.watchers / seconds,
    runsPerSecondSinceDue: bench.watchers / ((at - dueAt.getTime()) / 1_000),
    walKiB: ((await walBytes(bench.url)) - walBefore) / 1_024 / bench.watchers,
    cpu: { server: per1000("server"), postgres: per1000("postgres"), load: per1000("load") },
  };
}

/**
 * When the first run of the slot was recorded, in milliseconds since 1970. The ids of a slot's runs
 * begin with its time: read by them, a long bench does not read all its runs after every round.
 */
async function firstCreatedMs(url: string, slotAt: Date): Promise<number> {
  const digits = slotAt.getTime().toString(16).padStart(12, "0");
  const { rows } = await query(
    url,
    `select (extract(epoch from min(f.created_at)) * 1000)::float8 as first
    from org o join run_finished f on f.org_id = o.id and f.id >= $2
    where f.scheduled_for = $1`,
    [slotAt, `${digits.slice(0, 8)}-${digits.slice(8)}-0000-0000-000000000000`],
  );
  return rows[0].first as number;
}
