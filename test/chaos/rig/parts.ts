import { setTimeout as delay } from "node:timers/promises";
import { type Clients, createClients } from "@pinion/client";
import { ensureBootstrap } from "../../../src/store/people/orgs/orgs.ts";
import { openDatabase } from "../../../src/store/pg/database.ts";
import { createRandom } from "../../support/random.ts";
import type { Caller } from "./calls.ts";
import { closing } from "./closing.ts";
import type { Cluster } from "./cluster.ts";
import { createWatchers, type Enrolled, enrolDevices, enterWorkers, orgNames } from "./fleet.ts";
import { createHost, type HostProcess } from "./hosts.ts";
import type { Network } from "./network.ts";
import { observe } from "./observer.ts";
import { bounds, environment, type RigOptions } from "./options.ts";
import type { Recorder } from "./recorder.ts";
import { createReplica, type ReplicaProcess } from "./replicas.ts";
import { openTraffic, type Traffic } from "./traffic.ts";
import { type RigWatcher, runWorkload } from "./workload.ts";

/** The parts of a rig, in the order in which they are opened. */

/** The start decides nothing, so that a busy machine has all the time it needs. */
const startAnswerMsMax = 120_000;
const connectMsMax = 180_000;
const trafficDevicesDefault = 4;
const workersDefault = 4;

/** What the parts of a rig share while it is built. */
export type Site = {
  options: RigOptions;
  /** The parts, each closed before the parts that it needs. */
  open: AsyncDisposableStack;
  directory: string;
  recorder: Recorder;
  cluster: Cluster;
  progress: (text: string) => void;
};

export async function bootstrap(url: string): Promise<string> {
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
export async function openOrgs(
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

export async function untilConnected(cluster: Cluster, count: number): Promise<void> {
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

export async function openReplicas({
  options,
  open,
  directory,
  recorder,
  cluster,
  progress,
}: Site): Promise<ReplicaProcess[]> {
  const replicas = await Promise.all(
    Array.from({ length: options.replicas }, (_, index) =>
      createReplica({
        name: `replica-${index + 1}`,
        databaseUrl: cluster.url,
        database: () => cluster.primary(),
        directory,
        env: environment,
        record: recorder.record,
        sourceTree: options.sourceTree,
        program: options.program,
      }),
    ),
  );
  open.defer(closing("links of replicas", () => Promise.all(replicas.map(({ link }) => link.close()))));
  open.defer(closing("replicas", () => Promise.all(replicas.map((replica) => replica.kill()))));
  await Promise.all(replicas.map((replica) => replica.start()));
  progress(`${replicas.length} replicas serve`);
  return replicas;
}

/** The devices and workers, and their watchers. */
export async function makeFleet(
  { options, directory, progress }: Site,
  { starters, network, caller }: { starters: Map<string, Clients>; network: Network; caller: Caller },
): Promise<{ fleet: readonly Enrolled[]; watchers: RigWatcher[] }> {
  const random = createRandom(options.seed);
  const places = { clients: starters, directory, random, network };
  const fleet = [
    ...(await enrolDevices({ ...places, count: options.devices })),
    ...(await enterWorkers({ ...places, count: options.workers ?? workersDefault })),
  ];
  const { every } = options;
  const watchers = await createWatchers({ clients: starters, caller, random, fleet, every });
  progress(`${fleet.length} devices and workers enrolled, ${watchers.length} watchers made`);
  return { fleet, watchers };
}

/** Hooks, chains and messages on the first devices. */
export async function openTrafficOf(
  { options, open, recorder }: Site,
  {
    starters,
    network,
    fleet,
  }: { starters: Map<string, Clients>; network: Network; fleet: readonly Enrolled[] },
): Promise<Traffic | undefined> {
  const places = fleet
    .slice(0, Math.min(options.trafficDevices ?? trafficDevicesDefault, options.devices))
    .map(({ org, device: { deviceId } }) => ({ org, deviceId }));
  if (places.length === 0) return undefined;
  const traffic = await openTraffic({
    ...{ clients: starters, places, record: recorder.record, url: network.front.url },
    random: createRandom(options.seed + 2),
  });
  open.defer(closing("traffic", () => traffic.close()));
  return traffic;
}

/** The processes of the devices, started and connected. */
export async function openHosts(
  { options, open, directory, recorder, cluster, progress }: Site,
  fleet: readonly Enrolled[],
): Promise<HostProcess[]> {
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
      record: recorder.record,
      onRecord: (text) => recorder.append(text),
    }),
  );
  const killAll = () => Promise.all(hosts.map((host) => host.child?.isAlive && host.kill()));
  open.defer(closing("hosts", killAll));
  for (const host of hosts) {
    for (const { deviceId, slots } of host.devices) {
      const { org } = fleet.find(({ device }) => device.deviceId === deviceId)!;
      recorder.record({ kind: "device", device: deviceId, host: host.name, org, slots });
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
  return hosts;
}

/** The workload, and the observer of the database. */
export type Load = {
  /** Asks for no more work; resolves when the last call has ended. */
  stop(): Promise<void>;
  stopObserving(): Promise<void>;
};

export function startLoad(
  { options, open, recorder, cluster }: Site,
  asked: {
    clients: Map<string, Clients>;
    caller: Caller;
    watchers: readonly RigWatcher[];
    stopCalls: AbortController;
  },
): Load {
  const { clients, caller, watchers, stopCalls } = asked;
  const stop = new AbortController();
  const workload = runWorkload({
    ...{ clients, watchers, caller, stop: stop.signal },
    random: createRandom(options.seed + 1),
    callsPerSecond: options.callsPerSecond,
  });
  const observer = new AbortController();
  const { record } = recorder;
  const observing = observe({ cluster, record, ttlMs: bounds.ttlMs, stop: observer.signal });
  const end = () => {
    stop.abort();
    observer.abort();
    stopCalls.abort();
    return Promise.all([workload, observing]);
  };
  open.defer(closing("load", end));
  return {
    async stop() {
      stop.abort();
      await workload;
    },
    async stopObserving() {
      observer.abort();
      await observing;
    },
  };
}
