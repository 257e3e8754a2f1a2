/**
 * Two cells behind one front door (HAProxy): calls and triggers of the second cell while the first
 * one works, is killed, or hangs. The rounds of the three alternate, so that each meets the same
 * machine. The same callers ask the first cell at the same rate in all rounds.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { connectDevice, createClients, type DeviceConnection, silentLogger } from "@pinion/client";
import { Os } from "../clients/ts/src/gen/pinion/v1/device_pb.js";
import { newToken, withCell } from "../src/values/ids.ts";
import { type FrontDoor, startFrontDoor } from "../test/support/front-door.ts";
import { freePort } from "../test/support/programs.ts";
import type { Bench } from "./lib/bench.ts";
import { type Child, startChild } from "./lib/children.ts";
import { openCluster, query } from "./lib/cluster.ts";
import { percentiles, poissonGaps } from "./lib/percentiles.ts";
import { atMost } from "./lib/report.ts";
import { seedDevices, seedOrgs, seedServices, seedWatchers } from "./lib/seed.ts";

const full = { devices: 50, rounds: 4, seconds: 8, callsPerSecond: 100, triggersPerSecond: 20, seed: 7 };
const smoke = { ...full, devices: 5, rounds: 1, seconds: 1 };
const callMsMax = 1_000;
/** HAProxy looks at `/readyz` every two seconds, and needs two answers. */
const doorMs = 6_000;

const states = ["works", "is killed", "hangs"] as const;
type State = (typeof states)[number];
type Clients = ReturnType<typeof createClients>;

export const bench: Bench = async ({ isSmoke }) => {
  const options = isSmoke ? smoke : full;
  const cells = [await openCell("eu1", options.devices), await openCell("eu2", options.devices)] as const;
  const [first, second] = cells;
  const door = await startFrontDoor("haproxy", { eu1: first, eu2: second });
  const clients = [through(door, first.token), through(door, second.token)] as const;
  const fleet = await connectFleet(door, second.devices);
  try {
    await fleet.connected;
    const load = { ...options, clients, fleet, watchers: second.watchers };
    // Code and connections become warm; not counted.
    await measure(load);
    const measured = new Map(
      states.map((state) => [state, { calls: [] as number[], triggers: [] as number[] }]),
    );
    for (let round = 0; round < options.rounds; round++) {
      for (const state of states) {
        await first.become(state);
        const { calls, triggers } = await measure(load);
        measured.get(state)!.calls.push(...calls);
        measured.get(state)!.triggers.push(...triggers);
      }
    }
    const of = (state: State) => {
      const { calls, triggers } = measured.get(state)!;
      return { calls: percentiles(calls), triggers: percentiles(triggers) };
    };
    const works = of("works");
    return {
      options,
      rows: states.flatMap((state) => [
        row(`calls, the first cell ${state}`, of(state).calls),
        row(`trigger to frame, the first cell ${state}`, of(state).triggers),
      ]),
      budgets: states
        .slice(1)
        .flatMap((state) => [
          atMost(
            `p99 of calls while the first cell ${state}, times`,
            of(state).calls.p99 / works.calls.p99,
            1.25,
          ),
          atMost(
            `p99 of triggers while the first cell ${state}, times`,
            of(state).triggers.p99 / works.triggers.p99,
            1.25,
          ),
        ]),
    };
  } finally {
    await fleet.close();
    for (const client of clients) client.close();
    await door.close();
    for (const cell of cells) await cell.close();
  }
};

function row(name: string, { count, p50, p99, max }: ReturnType<typeof percentiles>) {
  return { milliseconds: name, count, p50, p99, max };
}

/** A database cluster with one org and one replica. */
async function openCell(name: "eu1" | "eu2", deviceCount: number) {
  const cluster = await openCluster();
  const database = await cluster.database("cell");
  await seedOrgs(database, 1);
  const tokenOf = () => newToken("dev");
  const devices = await seedDevices(database, { count: deviceCount, orgs: 1, slots: 64, tokenOf });
  await seedWatchers(database, 1);
  const [service] = await seedServices(database, 1, () => newToken("svc"));
  const { rows } = await query(database, "select id from watcher order by id");
  const [port, probePort] = [await freePort(), await freePort()];
  const start = async () => {
    const replica = await startChild("replica.ts", {
      ...{ DATABASE_URL: database, PINION_CELL: name, PINION_TRUSTED_PROXIES: "1" },
      ...{ PINION_PORT: String(port), PINION_PROBE_PORT: String(probePort) },
    });
    await replica.ask({ kind: "url" });
    return replica;
  };
  let replica: Child | undefined = await start();
  return {
    url: `http://127.0.0.1:${port}`,
    probePort,
    token: withCell(service!.token, name),
    devices: devices.map((device) => ({ ...device, token: withCell(device.token, name) })),
    watchers: rows.map(({ id }) => id as string),
    async become(state: State) {
      if (state === "is killed") {
        await replica?.kill();
        replica = undefined;
      } else {
        replica ??= await start();
        replica.process.kill(state === "hangs" ? "SIGSTOP" : "SIGCONT");
      }
      await sleep(doorMs);
    },
    async close() {
      await replica?.kill();
      await cluster.close();
    },
  };
}

function through(door: FrontDoor, token: string): Clients {
  return createClients({ url: door.url, token, tls: { ca: Buffer.from(door.ca) } });
}

type Fleet = { connected: Promise<unknown>; frames: Map<string, number>; close(): Promise<void> };

/**
 * The devices of the second cell, through the door; `frames` has the moment of each run's frame.
 */
async function connectFleet(
  door: FrontDoor,
  devices: readonly { token: string; installId: string }[],
): Promise<Fleet> {
  const folder = await mkdtemp(join(tmpdir(), "pinion-cells-"));
  const frames = new Map<string, number>();
  const connections: DeviceConnection[] = [];
  const connected = devices.map(({ token, installId }, index) => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const connection = connectDevice({
      ...{ url: door.url, tls: { ca: Buffer.from(door.ca) }, stateDir: join(folder, String(index)) },
      ...{ token, installId, agentKinds: ["bench"], os: Os.LINUX, maxConcurrency: 64 },
      logger: silentLogger,
      onEvent: ({ type }) => {
        if (type === "connected") resolve();
      },
      onAssignment: async ({ workId }) => {
        frames.set(workId, performance.now());
        return { outcome: "completed", output: "done" };
      },
    });
    connections.push(connection);
    return promise;
  });
  return {
    connected: Promise.all(connected),
    frames,
    async close() {
      await Promise.all(connections.map((connection) => connection.close({ graceMs: 0, flushMs: 1_000 })));
      await rm(folder, { recursive: true, force: true });
    },
  };
}

type Load = typeof full & { clients: readonly [Clients, Clients]; fleet: Fleet; watchers: readonly string[] };

/** One round: calls of both cells, and triggers of the second one. */
async function measure(load: Load): Promise<{ calls: number[]; triggers: number[] }> {
  const { clients, callsPerSecond, triggersPerSecond, seconds, fleet, watchers } = load;
  const [first, second] = clients;
  const calls: number[] = [];
  const asked: { runId: string; at: number }[] = [];
  await Promise.all([
    arrive(callsPerSecond, load, async () => {
      // What the first cell answers is not measured.
      await first.orgs.getOrg({}, { timeoutMs: callMsMax }).catch(() => {});
    }),
    arrive(callsPerSecond, load, async () => {
      const startedAt = performance.now();
      await second.orgs.getOrg({});
      calls.push(performance.now() - startedAt);
    }),
    arrive(triggersPerSecond, load, async (index) => {
      const at = performance.now();
      const { run } = await second.watchers.triggerWatcher({ watcherId: watchers[index % watchers.length]! });
      asked.push({ runId: run!.id, at });
    }),
  ]);
  // The last frames: no trigger is called after `seconds`.
  for (let waits = 0; asked.some(({ runId }) => !fleet.frames.has(runId)); waits++) {
    if (waits === seconds * 100) throw new Error("a triggered run did not arrive");
    await sleep(10);
  }
  return { calls, triggers: asked.map(({ runId, at }) => fleet.frames.get(runId)! - at) };
}

/** Starts calls as a Poisson process for `seconds`, and waits until all of them have ended. */
async function arrive(
  perSecond: number,
  { seconds, seed }: Pick<Load, "seconds" | "seed">,
  call: (index: number) => Promise<void>,
): Promise<void> {
  const calls: Promise<void>[] = [];
  let at = performance.now();
  const endAt = at + seconds * 1_000;
  for (const gap of poissonGaps(perSecond, seed + perSecond)) {
    at += gap;
    if (at > endAt) break;
    const leftMs = at - performance.now();
    if (leftMs > 0) await sleep(leftMs);
    const asked = call(calls.length);
    // A failure is thrown at the end, when all calls have been made.
    asked.catch(() => {});
    calls.push(asked);
  }
  await Promise.all(calls);
}
