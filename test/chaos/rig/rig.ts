import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Clients } from "@pinion/client";
import type { FaultProxy } from "../../support/fault-proxy.ts";
import type { Entry, Record } from "../history.ts";
import type { Rows } from "../rows.ts";
import { type Caller, createCaller, setSchedule } from "./calls.ts";
import { closing } from "./closing.ts";
import { type Cluster, openCluster } from "./cluster.ts";
import { type Enrolled, someAtOnce } from "./fleet.ts";
import type { HostProcess } from "./hosts.ts";
import { openNetwork } from "./network.ts";
import type { RigOptions } from "./options.ts";
import {
  bootstrap,
  type Load,
  makeFleet,
  openHosts,
  openOrgs,
  openReplicas,
  openTrafficOf,
  type Site,
  startLoad,
  untilConnected,
} from "./parts.ts";
import { readRows } from "./read-rows.ts";
import { openRecorder, type Recorder } from "./recorder.ts";
import type { ReplicaProcess } from "./replicas.ts";
import { pendingDeliveries, type Traffic } from "./traffic.ts";
import type { RigWatcher } from "./workload.ts";

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

const settleMsMaxDefault = 90_000;

export async function openRig(options: RigOptions): Promise<Rig> {
  const open = new AsyncDisposableStack();
  try {
    return await build(options, open);
  } catch (error) {
    await open.disposeAsync();
    throw error;
  }
}

async function build(options: RigOptions, open: AsyncDisposableStack): Promise<Rig> {
  const progress = options.onProgress ?? (() => {});
  const directory = await mkdtemp(join(tmpdir(), "pinion-chaos-"));
  await chmod(directory, 0o711);
  open.defer(closing("directory", () => rm(directory, { recursive: true, force: true })));
  const recorder = openRecorder(join(directory, "history.jsonl"));
  open.defer(closing("recorder", () => recorder.close()));
  const cluster = await openCluster(join(directory, "postgres"), { hasStandby: options.hasStandby ?? true });
  open.defer(closing("PostgreSQL", () => cluster.close()));
  progress("PostgreSQL runs");
  const operatorToken = await bootstrap(cluster.url);

  const site: Site = { options, open, directory, recorder, cluster, progress };
  const replicas = await openReplicas(site);
  const network = await openNetwork(replicas);
  open.defer(closing("network", () => network.close()));
  const orgs = await openOrgs(network.front.url, operatorToken);
  open.defer(() => {
    for (const one of [...orgs.clients.values(), ...orgs.starters.values()]) one.close();
  });
  const stopCalls = new AbortController();
  const caller = createCaller(recorder.record, stopCalls.signal);
  const { fleet, watchers } = await makeFleet(site, { ...orgs, network, caller });
  const traffic = await openTrafficOf(site, { ...orgs, network, fleet });
  const hosts = await openHosts(site, fleet);
  const load = startLoad(site, { ...orgs, caller, watchers, stopCalls });
  return rigOf(site, { replicas, fleet, watchers, traffic, hosts, load, caller, clients: orgs.clients });
}

function rigOf(
  { options, open, recorder, cluster, progress }: Site,
  parts: {
    replicas: ReplicaProcess[];
    fleet: readonly Enrolled[];
    watchers: RigWatcher[];
    traffic: Traffic | undefined;
    hosts: HostProcess[];
    load: Load;
    caller: Caller;
    clients: Map<string, Clients>;
  },
): Rig {
  const { replicas, fleet, watchers, traffic, hosts, load, caller, clients } = parts;
  let isOver = false;
  open.defer(() => {
    isOver = true;
  });
  return {
    ...{ cluster, replicas, hosts, traffic, record: recorder.record },
    devices: fleet.map(({ device, proxy }) => ({ deviceId: device.deviceId, proxy })),
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
      await mend({ fleet, replicas, cluster, hosts });
      const stopped = load.stop();
      traffic?.behave("well");
      await Promise.all([stopped, traffic?.stop()]);
      await endSchedules({ clients, caller, watchers });
      await untilQuiet({ cluster, hosts, ms: options.settleMsMax ?? settleMsMaxDefault, progress });
    },
    async finish() {
      await load.stopObserving();
      await endHosts(hosts, recorder);
      const rows = await readRows(cluster);
      return { history: await historyOf(hosts, recorder), rows };
    },
    close: () => open.disposeAsync(),
  };
}

/** Ends all faults, and starts all processes. */
async function mend(parts: {
  fleet: readonly Enrolled[];
  replicas: readonly ReplicaProcess[];
  cluster: Cluster;
  hosts: readonly HostProcess[];
}): Promise<void> {
  const { fleet, replicas, cluster, hosts } = parts;
  for (const { proxy } of fleet) proxy.heal();
  for (const { link } of replicas) link.heal();
  await cluster.clock?.set(0);
  cluster.disk?.empty();
  await cluster.start();
  for (const replica of replicas) if (!replica.child?.isAlive) await replica.start();
  for (const host of hosts) if (!host.child?.isAlive) await host.start();
}

/** Ends the devices, and records what their disks hold. */
async function endHosts(hosts: readonly HostProcess[], { record }: Recorder): Promise<void> {
  for (const host of hosts) {
    for (const held of await host.held()) record({ kind: "held", ...held });
  }
  await Promise.all(hosts.map((host) => host.kill()));
}

/** The history, with the programs that the devices ran. */
async function historyOf(hosts: readonly HostProcess[], recorder: Recorder): Promise<Entry[]> {
  const history = recorder.entries();
  const programs = await Promise.all(hosts.map((host) => host.programs(history)));
  return [...history, ...programs.flat()].sort((a, b) => a.at - b.at);
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
 * Waits until no run is live, no slot waits and no device holds a result; or until the number of
 * what is left has not fallen for `ms`, for the checker. A watcher's queue ends run by run, so a
 * busy machine takes minutes for the posts of an outage.
 */
async function untilQuiet(options: {
  cluster: Cluster;
  hosts: readonly HostProcess[];
  ms: number;
  progress: (text: string) => void;
}): Promise<void> {
  let least = Number.POSITIVE_INFINITY;
  let deadline = performance.now() + options.ms;
  while (performance.now() < deadline) {
    const [row] = await options.cluster.query<{ runs: number; slots: number; messages: number }>(
      `select (select count(*)::int from run) as runs, (select count(*)::int from backlog) as slots,
        (${pendingDeliveries}) as messages`,
    );
    const held = (await Promise.all(options.hosts.map((host) => host.held()))).flat().length;
    const left = row!.runs + row!.slots + row!.messages + held;
    if (left === 0) return;
    if (left < least) deadline = performance.now() + options.ms;
    least = Math.min(least, left);
    options.progress(
      `${row!.runs} runs, ${row!.slots} slots, ${row!.messages} messages and ${held} outboxes are left`,
    );
    await delay(1_000);
  }
}
