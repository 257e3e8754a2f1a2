/**
 * The cost of idle devices: streams with a heartbeat every 30 s, each on its own connection. The
 * reference: a bare node:http2 server with as many streams and as many answered messages.
 */
import { execSync } from "node:child_process";
import { newToken } from "../src/values/ids.ts";
import type { Bench } from "./lib/bench.ts";
import { type Child, startChild } from "./lib/children.ts";
import { type Cluster, openCluster, query } from "./lib/cluster.ts";
import { cpuSeconds, residentKiB } from "./lib/cpu.ts";
import { percentiles } from "./lib/percentiles.ts";
import { atMost, type Row } from "./lib/report.ts";
import { seedDevices, seedOrgs } from "./lib/seed.ts";

const beatMs = 30_000;
const full = { sizes: [200, 1_000, 5_000, 10_000, 20_000], windowMs: 15_000 };
const smoke = { sizes: [100, 300], windowMs: 3_000 };
/** Devices per load process at most: each socket costs an open file there, too. */
const perLoadMax = 10_000;
/** Open files of a process in addition to its streams. */
const otherFiles = 500;
const handledSize = 5_000;
/** The fleet size whose memory is mostly that of the process. */
const smallSize = 200;
/**
 * Milliseconds after a collection until V8 has given back what connecting took: 8 to 16 s after it,
 * by two further collections, which cost as much CPU as the heartbeats of 10 s.
 */
const settledMs = 20_000;
/** The fleet size of the CPU budget. */
const budgetSize = 10_000;

type Measured = {
  streams: number;
  kiBPerStream: number;
  cpuShare: number;
  statementsPerSecond: number;
  beats: ReturnType<typeof percentiles>;
};

export const bench: Bench = async ({ isSmoke }) => {
  const { sizes: wanted, windowMs } = isSmoke ? smoke : full;
  // Each stream is an open file of the server; where the system allows fewer, so many are measured.
  const filesMax = Number(execSync("ulimit -n").toString()) || Number.POSITIVE_INFINITY;
  const sizes = wanted.map((size) => Math.min(size, filesMax - otherFiles));
  const cluster = await openCluster({ shared_preload_libraries: "pg_stat_statements" });
  try {
    const rows: Row[] = [];
    const measured: Measured[] = [];
    for (const streams of sizes) {
      const pinion = await measurePinion(cluster, streams, windowMs);
      measured.push(pinion);
      rows.push(rowOf("Pinion", pinion));
      if (streams < Math.min(budgetSize, Math.max(...sizes))) continue;
      rows.push(rowOf("bare node:http2", await measureBare(streams, windowMs)));
    }
    const handled = await measurePinion(
      cluster,
      Math.min(handledSize, ...sizes.slice(-2)),
      windowMs,
      "connect",
    );
    rows.push(rowOf("Pinion, served by the Connect handler", handled));
    const last = measured.at(-1)!;
    const small = measured.filter((one) => one.streams === smallSize);
    const middle = measured.find((one) => one.streams === budgetSize) ?? last;
    return {
      options: { sizes, beatMs, windowMs },
      rows,
      budgets: [
        ...small.map((one) =>
          atMost(`KiB of memory per stream, ${smallSize} streams`, one.kiBPerStream, 100),
        ),
        atMost(`KiB of memory per stream, ${last.streams} streams`, last.kiBPerStream, 32),
        atMost(`share of a core in %, ${middle.streams} streams`, middle.cpuShare * 100, 6),
        atMost(`statements per second, ${middle.streams} streams`, middle.statementsPerSecond, 1),
      ],
    };
  } finally {
    await cluster.close();
  }
};

function rowOf(name: string, measured: Measured): Row {
  return {
    "": name,
    streams: measured.streams,
    "KiB per stream": measured.kiBPerStream,
    "% of a core": measured.cpuShare * 100,
    "statements/s": name.startsWith("Pinion") ? measured.statementsPerSecond : "",
    "beat p50 ms": measured.beats.p50,
    "beat p99 ms": measured.beats.p99,
  };
}

async function measurePinion(
  cluster: Cluster,
  streams: number,
  windowMs: number,
  deviceStreams: "bare" | "connect" = "bare",
): Promise<Measured> {
  const url = await cluster.database("fleet");
  await query(url, "create extension pg_stat_statements");
  await seedOrgs(url, 10);
  const devices = await seedDevices(url, {
    count: streams,
    orgs: 10,
    slots: 1,
    tokenOf: () => newToken("dev"),
  });
  const replica = await startChild(
    "replica.ts",
    {
      DATABASE_URL: url,
      PINION_STREAMS_MAX: String(streams + 1),
      PINION_DEVICE_STREAMS: deviceStreams,
      PINION_HEARTBEAT_INTERVAL_MS: String(beatMs),
      PINION_HEARTBEAT_TTL_MS: String(3 * beatMs),
    },
    ["--expose-gc"],
  );
  const urls = [await replica.ask<string>({ kind: "url" })];
  await replica.ask({ kind: "gc" });
  const before = residentKiB(replica.pid);
  const loads: Child[] = [];
  for (let at = 0; at < streams; at += perLoadMax) {
    const load = await startChild("load.ts");
    loads.push(load);
    await load.ask({ kind: "connect", urls, devices: devices.slice(at, at + perLoadMax), slots: 1, beatMs });
  }
  const statements = async () =>
    (
      await query(
        url,
        "select sum(calls)::int as count from pg_stat_statements s join pg_database d on d.oid = s.dbid where datname = current_database()",
      )
    ).rows[0].count as number;
  const result = await observe(replica, before, streams, windowMs, {
    reset: () => Promise.all(loads.map((load) => load.ask({ kind: "reset" }))),
    beats: async () =>
      (
        await Promise.all(loads.map((load) => load.ask<{ beats: number[] }>({ kind: "measurements" })))
      ).flatMap((one) => one.beats),
    statements,
  });
  for (const load of loads) await load.kill();
  await replica.kill();
  return result;
}

async function measureBare(streams: number, windowMs: number): Promise<Measured> {
  const server = await startChild("lib/echo.ts", {}, ["--expose-gc"]);
  const url = await server.ask<string>({ kind: "url" });
  await server.ask({ kind: "gc" });
  const before = residentKiB(server.pid);
  const loads: Child[] = [];
  for (let at = 0; at < streams; at += perLoadMax) {
    const load = await startChild("echo-load.ts");
    loads.push(load);
    await load.ask({ kind: "connect", url, count: Math.min(perLoadMax, streams - at), beatMs });
  }
  const beats = async () =>
    (await Promise.all(loads.map((load) => load.ask<number[]>({ kind: "beats" })))).flat();
  const result = await observe(server, before, streams, windowMs, {
    reset: beats,
    beats,
    statements: async () => 0,
  });
  for (const load of loads) await load.kill();
  await server.kill();
  return result;
}

/** Lets the streams settle and beat for a while, and returns the server's cost. */
async function observe(
  server: Child,
  beforeKiB: number,
  streams: number,
  windowMs: number,
  load: { reset(): Promise<unknown>; beats(): Promise<number[]>; statements(): Promise<number> },
): Promise<Measured> {
  await server.ask({ kind: "gc" });
  await new Promise((resolve) => setTimeout(resolve, settledMs));
  const kiBPerStream = (residentKiB(server.pid) - beforeKiB) / streams;
  await load.reset();
  const statementsBefore = await load.statements();
  const cpuBefore = cpuSeconds(server.pid);
  const startedAt = performance.now();
  await new Promise((resolve) => setTimeout(resolve, windowMs));
  const seconds = (performance.now() - startedAt) / 1_000;
  const cpuShare = (cpuSeconds(server.pid) - cpuBefore) / seconds;
  const statementsPerSecond = ((await load.statements()) - statementsBefore) / seconds;
  return { streams, kiBPerStream, cpuShare, statementsPerSecond, beats: percentiles(await load.beats()) };
}
