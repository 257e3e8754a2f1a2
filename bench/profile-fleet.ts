/**
 * What idle streams cost: the statements of a minute, memory, and the longest turns of the event
 * loop. `node bench/profile-fleet.ts 2000 60`: so many streams, watched for so many seconds.
 * `BEAT_MS`: the interval of heartbeats. `SNAPSHOT=FILE` writes the replica's heap at the end,
 * `PROFILE=FILE` a profile of its CPU; `BENCH_EXEC_ARGV` adds options of Node to the replica's.
 */
import { newToken } from "../src/values/ids.ts";
import { type Child, startChild } from "./lib/children.ts";
import { openCluster, query } from "./lib/cluster.ts";
import { cpuSeconds, residentKiB } from "./lib/cpu.ts";
import { percentiles } from "./lib/percentiles.ts";
import { seedDevices, seedOrgs } from "./lib/seed.ts";

const streams = Number(process.argv[2] ?? 2_000);
const seconds = Number(process.argv[3] ?? 60);
const beatMs = Number(process.env.BEAT_MS ?? 30_000);
const perLoadMax = 10_000;
/** Time for the statements of the start to end. */
const settleMs = Number(process.env.SETTLE_MS ?? 10_000);

const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

const cluster = await openCluster({ shared_preload_libraries: "pg_stat_statements" });
try {
  const url = await cluster.database("fleet");
  await query(url, "create extension pg_stat_statements");
  await seedOrgs(url, 10);
  const tokenOf = () => newToken("dev");
  const devices = await seedDevices(url, { count: streams, orgs: 10, slots: 1, tokenOf });
  const replica = await startChild(
    "replica.ts",
    {
      DATABASE_URL: url,
      PINION_STREAMS_MAX: String(streams + 1),
      PINION_HEARTBEAT_INTERVAL_MS: String(beatMs),
      PINION_HEARTBEAT_TTL_MS: String(3 * beatMs),
    },
    ["--expose-gc", ...(process.env.BENCH_EXEC_ARGV?.split(" ") ?? [])],
  );
  const urls = [await replica.ask<string>({ kind: "url" })];
  const heapBefore = await replica.ask<number>({ kind: "heap" });
  const beforeKiB = residentKiB(replica.pid);
  const connectedFrom = cpuSeconds(replica.pid);
  const loads = await connect(urls, devices);
  console.log({ connectMs: ((cpuSeconds(replica.pid) - connectedFrom) * 1_000) / Math.max(1, streams) });
  await wait(settleMs);
  const heapPerStream = ((await replica.ask<number>({ kind: "heap" })) - heapBefore) / streams;
  console.log({ beforeKiB, kiBPerStream: (residentKiB(replica.pid) - beforeKiB) / streams, heapPerStream });
  await query(url, "select pg_stat_statements_reset()");
  await Promise.all(loads.map((load) => load.ask({ kind: "reset" })));
  const profile = process.env.PROFILE;
  if (profile) await replica.ask({ kind: "profile" });
  const cpuBefore = cpuSeconds(replica.pid);
  await wait(seconds * 1_000);
  const beats = await Promise.all(
    loads.map((load) => load.ask<{ beats: number[] }>({ kind: "measurements" })),
  );
  console.log({
    cpuPercent: ((cpuSeconds(replica.pid) - cpuBefore) / seconds) * 100,
    beats: percentiles(beats.flatMap((one) => one.beats)),
    longestMs: beats
      .flatMap((one) => one.beats)
      .sort((a, b) => b - a)
      .slice(0, 8)
      .map(Math.round),
  });
  if (profile) await replica.ask({ kind: "profiled", path: profile });
  const { rows } = await query(
    url,
    `select calls, round((calls / $1::float)::numeric, 3) as per_s, round((total_exec_time / calls)::numeric, 2) as ms,
      left(regexp_replace(query, '\\s+', ' ', 'g'), 150) as query
    from pg_stat_statements s join pg_database d on d.oid = s.dbid where datname = current_database() order by calls desc`,
    [seconds],
  );
  console.log({ perSecond: rows.reduce((sum, { calls }) => sum + Number(calls), 0) / seconds });
  for (const row of rows) console.log(`${row.calls}\t${row.ms}\t${row.query}`);
  if (process.env.SNAPSHOT) await replica.ask({ kind: "snapshot", path: process.env.SNAPSHOT });
  for (const load of loads) await load.kill();
  await replica.kill();
} finally {
  await cluster.close();
}
process.exit(0);

async function connect(urls: string[], devices: { installId: string; token: string }[]): Promise<Child[]> {
  const loads: Child[] = [];
  for (let at = 0; at < devices.length; at += perLoadMax) {
    const load = await startChild("load.ts");
    loads.push(load);
    await load.ask({ kind: "connect", urls, devices: devices.slice(at, at + perLoadMax), slots: 1, beatMs });
  }
  return loads;
}
