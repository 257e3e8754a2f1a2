import { setTimeout as delay } from "node:timers/promises";
import type { FaultProxy } from "../../support/fault-proxy.ts";
import { createRandom } from "../../support/random.ts";
import { type Fault, type FaultKind, isOfNetwork } from "../plan.ts";
import { canLimitFiles } from "./hosts.ts";
import { receiverStrikes } from "./receiver-faults.ts";
import type { Rig } from "./rig.ts";

/** A fault as actions on processes and connections: its targets, its start and its end. */
type Strike = {
  /** Names of replicas, of hosts, or of devices. */
  targets: string[];
  begin(): Promise<void> | void;
  end?(): Promise<void> | void;
};

/** Two faults do not strike the same process at once: a killed process cannot be stopped. */
const struck = new WeakMap<Rig, Set<string>>();

/**
 * Injects the faults of the plan; resolves when all faults are over. `stop` ends the injection
 * early and heals the current faults.
 */
export async function inject(
  rig: Rig,
  plan: readonly Fault[],
  stop: AbortSignal,
  onFault: (fault: Fault) => void = () => {},
): Promise<void> {
  const startedAt = performance.now();
  const underWay: Promise<void>[] = [];
  for (const fault of plan) {
    const waitMs = startedAt + fault.atMs - performance.now();
    if (waitMs > 0) await delay(waitMs, undefined, { signal: stop }).catch(() => {});
    if (stop.aborted) break;
    onFault(fault);
    underWay.push(injectOne(rig, fault, stop));
  }
  await Promise.all(underWay);
}

async function injectOne(rig: Rig, fault: Fault, stop: AbortSignal): Promise<void> {
  const strike = strikes[fault.kind](rig, fault);
  if (!strike) return;
  const taken = struck.get(rig) ?? new Set<string>();
  struck.set(rig, taken);
  const isShared = isOfNetwork(fault.kind);
  if (!isShared && strike.targets.some((target) => taken.has(target))) return;
  for (const target of strike.targets) taken.add(target);
  const { id, kind: name } = fault;
  const { targets } = strike;
  rig.record({ kind: "fault", fault: id, name, phase: "begin", targets });
  try {
    await strike.begin();
    if (fault.durationMs > 0) await delay(fault.durationMs, undefined, { signal: stop }).catch(() => {});
    await strike.end?.();
  } finally {
    rig.record({ kind: "fault", fault: id, name, phase: "end", targets });
    if (!isShared) for (const target of targets) taken.delete(target);
  }
}

const strikes: Record<FaultKind, (rig: Rig, fault: Fault) => Strike | undefined> = {
  replica_kill: (rig, fault) =>
    ofReplica(rig, fault, (replica) => ({
      begin: () => replica.kill(),
      end: () => startAgain(rig, () => replica.start()),
    })),
  replica_term: (rig, fault) =>
    ofReplica(rig, fault, (replica) => ({
      begin: () => replica.stop(),
      end: () => startAgain(rig, () => replica.start()),
    })),
  replica_pause: (rig, fault) =>
    ofReplica(rig, fault, (replica) => ({
      begin: () => replica.pause(),
      end: () => replica.continue(),
    })),
  replica_clock: (rig, fault) =>
    ofReplica(rig, fault, (replica) => ({
      begin: () => replica.child?.meddle({ clockMs: fault.jumpMs }),
      end: () => replica.child?.meddle({ clockMs: 0 }),
    })),
  notifications_lost: (rig, fault) =>
    ofReplica(rig, fault, (replica) => ({
      begin: () => replica.child?.meddle({ losesNotifications: true }),
      end: () => replica.child?.meddle({ losesNotifications: false }),
    })),
  host_kill: (rig, fault) =>
    ofHost(rig, fault, (host) => ({
      begin: () => host.kill(),
      end: () => host.start(),
    })),
  host_pause: (rig, fault) =>
    ofHost(rig, fault, (host) => ({
      begin: () => host.child?.signal("SIGSTOP"),
      end: () => host.child?.signal("SIGCONT"),
    })),
  host_clock: (rig, fault) =>
    ofHost(rig, fault, (host) => ({
      begin: () => host.child?.meddle({ clockMs: fault.jumpMs }),
      end: () => host.child?.meddle({ clockMs: 0 }),
    })),
  disk_full: (rig, fault) =>
    !canLimitFiles()
      ? undefined
      : ofHost(rig, fault, (host) => ({
          begin: () => host.setDiskFull(true),
          end: () => host.setDiskFull(false),
        })),
  ...receiverStrikes,
  postgres_restart: (rig) => ofPostgres(rig),
  postgres_outage: (rig) => ofPostgres(rig),
  backends_terminated: (rig) => ({
    targets: ["backends"],
    begin: () => terminate(rig, "application_name like 'pinion-%' and random() < 0.6"),
  }),
  listen_dropped: (rig) => ({
    targets: ["listeners"],
    begin: () => terminate(rig, "application_name = 'pinion listener'"),
  }),
  database_blackhole: (rig, fault) => ofDatabaseLink(rig, fault, { up: "blackhole", down: "blackhole" }),
  database_reset: (rig, fault) => ofDatabaseLink(rig, fault, {}),
  database_latency: (rig, fault) => ofDatabaseLink(rig, fault, { latencyMs: 60 }),
  database_disk_full: ({ cluster: { disk } }) =>
    disk && { targets: ["the database's disk"], begin: () => disk.fill(), end: () => disk.empty() },
  database_clock: ({ cluster: { clock } }, fault) =>
    clock && {
      targets: ["the database's clock"],
      begin: () => clock.set(fault.jumpMs),
      end: () => clock.set(0),
    },
  database_failover: (rig) => ofFailover(rig),
  partition_longer_than_ttl: (rig, fault) =>
    ofNetwork(rig, fault, (proxy) => proxy.set({ up: "blackhole", down: "blackhole" }), { isCut: true }),
  network_latency: (rig, fault) => ofNetwork(rig, fault, (proxy) => proxy.set({ latencyMs: 300 })),
  network_blackhole: (rig, fault) =>
    ofNetwork(
      rig,
      fault,
      (proxy, random) => {
        const which = random.whole(0, 2);
        if (which !== 1) proxy.set({ up: "blackhole" });
        if (which !== 0) proxy.set({ down: "blackhole" });
      },
      { isCut: true },
    ),
  network_reset: (rig, fault) => ofNetwork(rig, fault, (proxy) => proxy.reset()),
  network_half_open: (rig, fault) =>
    ofNetwork(rig, fault, (proxy, random) => {
      proxy.sever(random.chance(0.5) ? "client" : "server");
    }),
  network_slow_reader: (rig, fault) => ofNetwork(rig, fault, (proxy) => proxy.set({ down: "stall" })),
  network_bandwidth: (rig, fault) => ofNetwork(rig, fault, (proxy) => proxy.set({ bytesPerSecond: 20_000 })),
  // Longer than a device waits for its welcome: messages of an abandoned stream arrive after those
  // of the next stream.
  network_reorder: (rig, fault) =>
    ofNetwork(rig, fault, (proxy) => {
      proxy.set({ lateUpMs: 4_000 });
      proxy.reset();
    }),
  network_refused: (rig, fault) =>
    ofNetwork(rig, fault, (proxy) => {
      proxy.set({ onConnect: "reset" });
      proxy.reset();
    }),
  network_hang: (rig, fault) =>
    ofNetwork(rig, fault, (proxy) => {
      proxy.set({ onConnect: "hang" });
      proxy.reset();
    }),
};

function ofReplica(
  rig: Rig,
  fault: Fault,
  make: (replica: Rig["replicas"][number]) => Omit<Strike, "targets">,
): Strike {
  const replica = rig.replicas[fault.target]!;
  return { targets: [replica.name], ...make(replica) };
}

function ofHost(
  rig: Rig,
  fault: Fault,
  make: (host: Rig["hosts"][number]) => Omit<Strike, "targets">,
): Strike {
  const host = rig.hosts[fault.target]!;
  return { targets: [host.name], ...make(host) };
}

function ofPostgres(rig: Rig): Strike {
  return { targets: ["postgres"], begin: () => rig.cluster.crash(), end: () => rig.cluster.start() };
}

/**
 * The standby stops hearing of the primary, and replaces the primary when the fault ends: commits
 * in between are lost. Without a standby nothing happens: the new one is not ready, or the primary
 * is away.
 */
function ofFailover({ cluster, replicas }: Rig): Strike {
  let isCut = false;
  return {
    targets: ["postgres"],
    async begin() {
      isCut = await cluster.standbyIsCurrent();
      if (isCut) cluster.cutStandby();
    },
    async end() {
      if (!isCut) return;
      await cluster.failOver();
      for (const { link } of replicas) link.reset();
    },
  };
}

/** Applies faults to the link between one replica and PostgreSQL. */
function ofDatabaseLink(rig: Rig, fault: Fault, faults: Parameters<FaultProxy["set"]>[0]): Strike {
  const { name, link } = rig.replicas[fault.target]!;
  const heal = () => {
    link.heal();
    // As below: after dropped bytes the connection would be invalid as a protocol.
    if (faults.up === "blackhole") link.reset();
  };
  return {
    targets: [`${name}'s database`],
    begin() {
      if (Object.keys(faults).length === 0) link.reset();
      else link.set(faults);
    },
    end: heal,
  };
}

function ofNetwork(
  rig: Rig,
  fault: Fault,
  begin: (proxy: Rig["devices"][number]["proxy"], random: ReturnType<typeof createRandom>) => void,
  options: { isCut?: boolean } = {},
): Strike {
  const random = createRandom(fault.id);
  const devices = rig.devices.filter(() => random.chance(fault.share));
  return {
    targets: devices.map(({ deviceId }) => deviceId),
    begin() {
      for (const { proxy } of devices) begin(proxy, random);
    },
    end() {
      for (const { proxy } of devices) {
        proxy.heal();
        // Bytes were dropped: the rest of these connections would be invalid as a protocol.
        if (options.isCut) proxy.reset();
      }
    },
  };
}

/**
 * PostgreSQL may be away when a replica is to come back; an operator would start the replica again,
 * too.
 */
async function startAgain(rig: Rig, start: () => Promise<void>): Promise<void> {
  for (;;) {
    try {
      await start();
      return;
    } catch (error) {
      if (rig.isOver) throw error;
      await delay(500);
    }
  }
}

async function terminate(rig: Rig, which: string): Promise<void> {
  await rig.cluster
    .query(
      `select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and ${which}`,
    )
    .catch(() => {});
}
