import { createRandom, type Random } from "../support/random.ts";

/**
 * Faults with their times: a value determined by the seed. The target of a fault is a name, not a
 * process.
 */

export const faultKinds = [
  "replica_kill",
  "replica_term",
  "replica_pause",
  "host_kill",
  "host_pause",
  "postgres_restart",
  "postgres_outage",
  "backends_terminated",
  "listen_dropped",
  "database_blackhole",
  "database_reset",
  "database_latency",
  "database_disk_full",
  "database_clock",
  "database_failover",
  "notifications_lost",
  "host_clock",
  "replica_clock",
  "disk_full",
  "network_latency",
  "network_blackhole",
  "network_reset",
  "network_half_open",
  "network_slow_reader",
  "network_bandwidth",
  "network_reorder",
  "network_refused",
  "network_hang",
  "partition_longer_than_ttl",
  "receiver_down",
  "receiver_slow",
  "receiver_errors",
] as const;

export type FaultKind = (typeof faultKinds)[number];

/** Whether a fault strikes connections of single devices. */
export const isOfNetwork = (kind: FaultKind): boolean =>
  kind.startsWith("network") || kind === "partition_longer_than_ttl";

export type Fault = {
  id: number;
  kind: FaultKind;
  /** From the beginning of the run. */
  atMs: number;
  /** Until the fault ends by itself or is healed; 0: over at once. */
  durationMs: number;
  /**
   * The number of the struck replica or host; for network faults, the share of devices from 0 to 1.
   */
  target: number;
  share: number;
  /** For the clocks: the jump. */
  jumpMs: number;
};

export type PlanOptions = {
  seed: number;
  /** Faults begin and end before this time. */
  lengthMs: number;
  replicas: number;
  hosts: number;
  ttlMs: number;
  /** Maximum time without PostgreSQL. */
  outageMsMax: number;
  kinds?: readonly FaultKind[];
  /** Between the beginnings of two faults, about. */
  gapMs: number;
  /** Makes all faults last so many times as long; default 1. */
  durationFactor?: number;
};

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
/** How far ahead the clock of the database jumps: never up to an hour, which is believed. */
const databaseJumpDays = { min: 2, max: 60 };
/** No fault begins before the fleet has connected and work is under way. */
const firstAtMs = 3_000;

/**
 * Each round contains all kinds, in a random order; the first begins with the longest fault, so
 * that a short plan has room for it. A fault that does not end in time is left out.
 */
export function planFaults(options: PlanOptions): Fault[] {
  const random = createRandom(options.seed);
  const kinds = options.kinds ?? faultKinds;
  const faults: Fault[] = [];
  let atMs = firstAtMs;
  for (let round: FaultKind[] = []; ; ) {
    if (round.length === 0) {
      round = random.shuffled(kinds);
      if (faults.length === 0) round.sort((a, b) => Number(isLong(b)) - Number(isLong(a)));
    }
    const kind = round.shift()!;
    const durationMs = durationOf(kind, options, random) * (options.durationFactor ?? 1);
    const fault = {
      id: faults.length + 1,
      kind,
      atMs,
      durationMs,
      target: random.whole(
        0,
        (kind.startsWith("host") || kind === "disk_full" ? options.hosts : options.replicas) - 1,
      ),
      share: 0.1 + 0.5 * random.next(),
      jumpMs: jumpOf(kind, random),
    };
    if (atMs > options.lengthMs) return faults;
    if (atMs + durationMs <= options.lengthMs) faults.push(fault);
    atMs += Math.round(options.gapMs * (0.4 + 1.2 * random.next()));
  }
}

const isLong = (kind: FaultKind) => kind === "partition_longer_than_ttl";

function jumpOf(kind: FaultKind, random: Random): number {
  if (kind === "database_clock") return dayMs * random.whole(databaseJumpDays.min, databaseJumpDays.max);
  return random.chance(0.5) ? hourMs : -hourMs;
}

function durationOf(kind: FaultKind, options: PlanOptions, random: Random): number {
  switch (kind) {
    case "replica_kill":
    case "replica_term":
    case "host_kill":
      // Until the process is started again.
      return random.whole(200, 3_000);
    case "replica_pause":
    case "host_pause":
      return Math.round(options.ttlMs * (1.1 + random.next()));
    case "postgres_restart":
    case "backends_terminated":
    case "listen_dropped":
    case "database_reset":
    case "network_reset":
      return 0;
    // Long enough that every attempt of the devices is reaped, and that finished programs wait in
    // the outbox.
    case "partition_longer_than_ttl":
      return Math.round(options.ttlMs * (2.5 + random.next()));
    // The replicas look at the clock every 5 s, and with each statement that decides by the clock.
    case "database_clock":
      return random.whole(3_000, 9_000);
    // So long the standby lags.
    case "database_failover":
      return random.whole(1_000, 5_000);
    case "postgres_outage":
      return random.whole(Math.min(2_000, options.outageMsMax), options.outageMsMax);
    case "database_latency":
    case "network_reorder":
    case "network_latency":
      return random.whole(2_000, 6_000);
    default:
      return random.whole(1_000, Math.round(options.ttlMs * 2));
  }
}
