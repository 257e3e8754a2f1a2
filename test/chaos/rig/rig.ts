import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type Clients, createClients } from "@pinion/client";
import { ensureBootstrap } from "../../../src/store/people/orgs/orgs.ts";
import { openDatabase } from "../../../src/store/pg/database.ts";
import type { FaultProxy } from "../../support/fault-proxy.ts";
import { createRandom } from "../../support/random.ts";
import type { Bounds } from "../checker/world.ts";
import type { Entry, Record } from "../history.ts";
import type { Rows } from "../rows.ts";
import { type Caller, createCaller, setSchedule } from "./calls.ts";
import { type Cluster, openCluster } from "./cluster.ts";
import { createWatchers, enrolDevices, enterWorkers, orgNames, someAtOnce } from "./fleet.ts";
import { createHost, type HostProcess } from "./hosts.ts";
import { openNetwork } from "./network.ts";
import { observe } from "./observer.ts";
import { readRows } from "./read-rows.ts";
import { openRecorder } from "./recorder.ts";
import { createReplica, type ReplicaProcess } from "./replicas.ts";
import { openTraffic, pendingDeliveries, type Traffic } from "./traffic.ts";
import { type RigWatcher, runWorkload } from "./workload.ts";

/**
 * Real processes: PostgreSQL, replicas, hosts full of devices, each device behind its own proxy.
 */
export type Rig = {
  cluster: Cluster;
  replicas: ReplicaProcess[];
  hosts: HostProcess[];
  devices: { deviceId: string; proxy: FaultProxy }[];
  record: Record;
  /** Undefined in a rig without hooks, chains and destinations. */
  traffic: Traffic | undefined;
  /** The run is being closed; nothing is started any more. */
  readonly isOver: boolean;
  readonly messages: number;
  readonly calls: number;
  /** Resolves when every device has a stream. */
  connected(): Promise<void>;
  /**
   * After the faults: starts all processes, stops asking for work, and waits until all requested
   * work is done.
   */
  settle(): Promise<void>;
  /** Reads the final state, and ends all processes. */
  finish(): Promise<{ history: Entry[]; rows: Rows }>;
  close(): Promise<void>;
};

export type RigOptions = {
  seed: number;
  replicas: number;
  devices: number;
  /** Fleet workers, which take the runs of watchers without a device; default 4. */
  workers?: number;
  hosts: number;
  /** Calls of people and services. */
  callsPerSecond: number;
  /** The minimum frequency of scheduled runs for each device; by default, the workload's. */
  every?: number;
  /** Maximum duration of an attempt's work. */
  workMsMax?: number;
  /** The source tree of the replicas and the devices; this checkout, unless a mutation is tested. */
  sourceTree?: string | undefined;
  /** The script of a built command for the replicas, in place of sources. */
  program?: string | undefined;
  dropsOutbox?: boolean;
  prefersUnary?: boolean;
  /** Devices complete all assigned runs. */
  isReliable?: boolean;
  /** Devices with hooks, chains and messages beside their other work; default 4. */
  trafficDevices?: number;
  /** A standby, to which the database can fail over; default true. */
  hasStandby?: boolean;
  /** Maximum wait of `settle`. */
  settleMsMax?: number;
  onProgress?: (text: string) => void;
};

/** The timers of the rig: short, and in the relations of the defaults. */
export const bounds: Bounds = {
  ttlMs: 4_000,
  silentAttemptMs: 8_000,
  // A machine that runs the whole rig at once is late by seconds at times.
  slackMs: 20_000,
  sweepMs: 3_000,
  pushSlackMs: 5_000,
};

const environment: { [name: string]: string } = {
  PINION_HEARTBEAT_INTERVAL_MS: "1000",
  PINION_HEARTBEAT_TTL_MS: String(bounds.ttlMs),
  PINION_HELLO_DEADLINE_MS: "3000",
  PINION_ACCEPT_DEADLINE_MS: "1500",
  PINION_SILENT_ATTEMPT_MS: String(bounds.silentAttemptMs),
  PINION_NEVER_BEAT_MS: "20000",
  PINION_RUN_TIMEOUT_GRACE_MS: "3000",
  PINION_STREAM_AGE_MS: "30000",
  PINION_INTERVAL_MIN: "1s",
  PINION_SWEEP_INTERVAL_MS: String(bounds.sweepMs),
  PINION_REAP_INTERVAL_MS: "500",
  PINION_RETRY_BACKOFF_MS: "500",
  PINION_WATCHER_BACKOFF_MS: "2000",
  // The workload goes on, however often its work fails.
  PINION_PAUSE_AFTER_FAILURES: "1000",
  PINION_SHUTDOWN_MS: "5000",
  PINION_DATABASE_CONNECTIONS: "6",
  PINION_SECRET_KEYS: `chaos:${Buffer.alloc(32, 7).toString("base64")}`,
  PINION_DESTINATION_NETWORKS: "127.0.0.0/8",
};

/** The start decides nothing, so that a busy machine has all the time it needs. */
const startAnswerMsMax = 120_000;
const connectMsMax = 180_000;
const settleMsMaxDefault = 90_000;
const trafficDevicesDefault = 4;
const workersDefault = 4;

export async function openRig(options: RigOptions): Promise<Rig> {
  const random = createRandom(options.seed);
  const progress = options.onProgress ?? (() => {});
  const open = new AsyncDisposableStack();
  try {
    const directory = await mkdtemp(join(tmpdir(), "pinion-chaos-"));
    await chmod(directory, 0o711);
    open.defer(() => rm(directory, { recursive: true, force: true }));
    const recorder = openRecorder(join(directory, "history.jsonl"));
    open.defer(() => recorder.close());
    const { record } = recorder;
    const cluster = await openCluster(join(directory, "postgres"), {
      hasStandby: options.hasStandby ?? true,
    });
    open.defer(() => cluster.close());
    progress("PostgreSQL runs");
    const operatorToken = await bootstrap(cluster.url);

    const replicas = await Promise.all(
      Array.from({ length: options.replicas }, (_, index) =>
        createReplica({
          name: `replica-${index + 1}`,
          databaseUrl: cluster.url,
          database: () => cluster.primary(),
          directory,
          env: environment,
          record,
          sourceTree: options.sourceTree,
          program: options.program,
        }),
      ),
    );
    open.defer(async () => {
      await Promise.all(replicas.map((replica) => replica.kill()));
      await Promise.all(replicas.map(({ link }) => link.close()));
    });
    await Promise.all(replicas.map((replica) => replica.start()));
    progress(`${replicas.length} replicas serve`);

    const network = await openNetwork(replicas);
    open.defer(() => network.close());
    const stopCalls = new AbortController();
    const caller = createCaller(record, stopCalls.signal);
    const { clients, starters } = await openOrgs(network.front.url, operatorToken);
    open.defer(() => {
      for (const one of [...clients.values(), ...starters.values()]) one.close();
    });

    const places = { clients: starters, directory, random, network };
    const fleet = [
      ...(await enrolDevices({ ...places, count: options.devices })),
      ...(await enterWorkers({ ...places, count: options.workers ?? workersDefault })),
    ];
    const watchers = await createWatchers({
      ...{ clients: starters, caller, random, fleet, every: options.every },
    });
    progress(`${fleet.length} devices and workers enrolled, ${watchers.length} watchers made`);
    const followed = fleet
      .slice(0, Math.min(options.trafficDevices ?? trafficDevicesDefault, options.devices))
      .map(({ org, device: { deviceId } }) => ({ org, deviceId }));
    const traffic =
      followed.length === 0
        ? undefined
        : await openTraffic({
            ...{ clients: starters, places: followed, record, url: network.front.url },
            random: createRandom(options.seed + 2),
          });
    open.defer(() => traffic?.close());

    const hosts = Array.from({ length: options.hosts }, (_, index) =>
      createHost({
        name: `host-${index + 1}`,
        directory,
        config: {
          devices: fleet.filter((_, at) => at % options.hosts === index).map(({ device }) => device),
          workMsMax: options.workMsMax ?? 6_000,
          dropsOutbox: options.dropsOutbox ?? false,
          prefersUnary: options.prefersUnary ?? false,
          isReliable: options.isReliable ?? false,
        },
        sourceTree: options.sourceTree,
        record,
        onRecord: (text) => recorder.append(text),
      }),
    );
    open.defer(async () => {
      await Promise.all(hosts.map((host) => host.child?.isAlive && host.kill()));
    });
    for (const host of hosts) {
      for (const { deviceId, slots } of host.devices) {
        const { org } = fleet.find(({ device }) => device.deviceId === deviceId)!;
        record({ kind: "device", device: deviceId, host: host.name, org, slots });
      }
    }
    // One after the other: a busy machine does not welcome a whole fleet within its short deadlines.
    let started = 0;
    for (const host of hosts) {
      await host.start();
      started += host.devices.length;
      await untilConnected(cluster, started);
      progress(`${started} devices are connected`);
    }

    const stop = new AbortController();
    const workload = runWorkload({
      random: createRandom(options.seed + 1),
      clients,
      watchers,
      caller,
      callsPerSecond: options.callsPerSecond,
      stop: stop.signal,
    });
    const observer = new AbortController();
    const observing = observe({ cluster, record, ttlMs: bounds.ttlMs, stop: observer.signal });
    open.defer(async () => {
      stop.abort();
      observer.abort();
      stopCalls.abort();
      await Promise.all([workload, observing]);
    });

    let isOver = false;
    open.defer(() => {
      isOver = true;
    });
    return {
      cluster,
      replicas,
      hosts,
      devices: fleet.map(({ device, proxy }) => ({ deviceId: device.deviceId, proxy })),
      record,
      traffic,
      get isOver() {
        return isOver;
      },
      get messages() {
        return recorder.messages;
      },
      get calls() {
        return caller.answered;
      },
      connected: () => untilConnected(cluster, fleet.length),
      async settle() {
        for (const { proxy } of fleet) proxy.heal();
        for (const { link } of replicas) link.heal();
        await cluster.clock?.set(0);
        cluster.disk?.empty();
        await cluster.start();
        for (const replica of replicas) if (!replica.child?.isAlive) await replica.start();
        for (const host of hosts) if (!host.child?.isAlive) await host.start();
        stop.abort();
        traffic?.behave("well");
        await Promise.all([workload, traffic?.stop()]);
        await endSchedules({ clients, caller, watchers });
        await untilQuiet({ cluster, hosts, ms: options.settleMsMax ?? settleMsMaxDefault, progress });
      },
      async finish() {
        observer.abort();
        await observing;
        for (const host of hosts) {
          for (const held of await host.held()) record({ kind: "held", ...held });
        }
        await Promise.all(hosts.map((host) => host.kill()));
        const rows = await readRows(cluster);
        const history = recorder.entries();
        const programs = await Promise.all(hosts.map((host) => host.programs(history)));
        return { history: [...history, ...programs.flat()].sort((a, b) => a.at - b.at), rows };
      },
      close: () => open.disposeAsync(),
    };
  } catch (error) {
    await open.disposeAsync();
    throw error;
  }
}

async function bootstrap(url: string): Promise<string> {
  const database = openDatabase({ url, poolMax: 1, applicationName: "chaos rig" });
  try {
    const made = await ensureBootstrap(database.db);
    if (!made) throw new Error("the rig's database is not new");
    return made.secret;
  } finally {
    await database.close();
  }
}

/**
 * Makes the orgs. `clients` are the callers under faults, which repeat a call without an answer;
 * `starters` make the fleet, and wait for every answer.
 */
async function openOrgs(
  url: string,
  operatorToken: string,
): Promise<{ clients: Map<string, Clients>; starters: Map<string, Clients> }> {
  const patient = (token: string) => createClients({ url, token, answerDeadlineMs: startAnswerMsMax });
  const operator = patient(operatorToken);
  const clients = new Map<string, Clients>();
  const starters = new Map<string, Clients>();
  for (const org of orgNames) {
    const { secret } = await operator.orgs.createOrg({
      orgId: org,
      name: org,
      ownerEmail: `owner@${org}.example`,
      ownerName: org,
    });
    clients.set(org, createClients({ url, token: secret, answerDeadlineMs: 5_000 }));
    starters.set(org, patient(secret));
  }
  operator.close();
  return { clients, starters };
}

async function untilConnected(cluster: Cluster, count: number): Promise<void> {
  const deadline = performance.now() + connectMsMax;
  for (;;) {
    const [row] = await cluster.query<{ connected: number }>(
      "select count(*)::int as connected from presence where epoch > 0 and disconnected_at is null",
    );
    if (row!.connected >= count) return;
    if (performance.now() > deadline) throw new Error(`${row!.connected} of ${count} devices connected`);
    await delay(100);
  }
}

/** From here on no schedule fires; due slots are recorded before. */
async function endSchedules(options: {
  clients: ReadonlyMap<string, Clients>;
  caller: Caller;
  watchers: readonly RigWatcher[];
}): Promise<void> {
  const { clients, caller } = options;
  const scheduled = options.watchers.filter(({ every, isEdited }) => every !== null || isEdited);
  await someAtOnce(
    scheduled.map(
      ({ id, org }) =>
        () =>
          caller.call(
            org,
            { method: "setSchedule", watcher: id, every: null },
            () => setSchedule(clients.get(org)!, id, null),
            () => ({}),
          ),
    ),
  );
}

/**
 * Waits until no run is live, no slot waits and no device holds a result; or until the time is up,
 * for the checker.
 */
async function untilQuiet(options: {
  cluster: Cluster;
  hosts: readonly HostProcess[];
  ms: number;
  progress: (text: string) => void;
}): Promise<void> {
  const deadline = performance.now() + options.ms;
  while (performance.now() < deadline) {
    const [row] = await options.cluster.query<{ runs: number; slots: number; messages: number }>(
      `select (select count(*)::int from run) as runs, (select count(*)::int from backlog) as slots,
        (${pendingDeliveries}) as messages`,
    );
    const held = (await Promise.all(options.hosts.map((host) => host.held()))).flat().length;
    if (row!.runs === 0 && row!.slots === 0 && row!.messages === 0 && held === 0) return;
    options.progress(
      `${row!.runs} runs, ${row!.slots} slots, ${row!.messages} messages and ${held} outboxes are left`,
    );
    await delay(1_000);
  }
}
