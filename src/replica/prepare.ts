/**
 * Preparations before a replica takes work: judge the clock, delete old rows, plan statements,
 * announce the replica.
 */
import { type Retained, retainIfDue } from "../scheduler/retention.ts";
import type { Clock } from "../scheduler/slots/clock.ts";
import { startClock } from "../scheduler/slots/clock-watch.ts";
import { warmUp, warmUpTriggers } from "../scheduler/warm-up.ts";
import { peerAddressOf } from "../server/access/peer.ts";
import { type Crowd, createCrowd } from "../server/http/crowd/crowd.ts";
import type { HealthState } from "../server/http/health.ts";
import { reachableHost } from "../server/http/port/port.ts";
import { createNumbers } from "../server/http/probes.ts";
import * as replicas from "../store/work/service/replicas.ts";
import type { Foundation } from "./foundation.ts";
import { requestsKept, type Storage } from "./storage.ts";
import type { Work } from "./work.ts";

export type Prepared = {
  judge: Clock;
  /** The pass of retention; undefined if none was due, and while the clock is in doubt. */
  retained: Retained | undefined;
};

/**
 * Judges the database's clock, deletes expired rows if the hourly pass is due and the clock is not
 * in doubt, and plans the statements unless `isCold`.
 */
export async function prepare(
  { config, replicaId, log, clock, opened }: Foundation,
  { work: { db }, requests, looks }: Storage,
  { isCold = false }: { isCold?: boolean },
): Promise<Prepared> {
  const judge = await startClock({ db, looks, log, replicaId, policy: config.clockJump });
  // Work that is held until it is due is not due by a clock in doubt.
  clock.doubt(judge.doubts);
  opened.defer(() => judge.stop());
  const { retentionDays: days, conversationDays } = config;
  const retained = judge.doubtMs() === 0 ? await retainIfDue(db, { days, conversationDays, log }) : undefined;
  if (!isCold) {
    await warmUp(db, config.failures);
    const kept = Math.min(requestsKept, config.connectionsMax);
    await warmUpTriggers(requests.tenantDb, kept).catch((error) =>
      log.warn({ err: error }, "the first triggers plan their statements themselves"),
    );
  }
  return { judge, retained };
}

/** Adds the replica to the list of living replicas, until its stop. */
export async function announceReplica(
  { config, replicaId, log, opened }: Foundation,
  { work: { db } }: Storage,
): Promise<replicas.Replica> {
  const replica = { id: replicaId, address: `${reachableHost(config.host)}:${config.port}` };
  await replicas.beat(db, replica);
  opened.defer(() =>
    replicas.remove(db, replicaId).catch((error) => log.warn({ err: error }, "not taken off the list")),
  );
  return replica;
}

/** Counts the port's connections per peer, and closes those of peers beyond the limit. */
export function openCrowd({ config, metrics, opened }: Foundation): Crowd {
  const crowd = createCrowd({
    connectionsMax: config.strangers.connections,
    ...config.strangers,
    knownBytesMax: config.bodyBytesMax,
    isBehindProxies: config.trustedProxies > 0,
    addressOf: (headers, remoteAddress) => peerAddressOf(headers, remoteAddress, config.trustedProxies),
    onCut: metrics.peerCut,
  });
  opened.defer(() => crowd.close());
  return crowd;
}

/** Registers the parts' figures with the metrics, read at each scrape. */
export function observe(
  { metrics, log }: Foundation,
  { work, requests }: Storage,
  { bus, hub }: Work,
  { health, crowd, judge }: { health: HealthState; crowd: Crowd; judge: Pick<Clock, "doubtMs"> },
): void {
  metrics.observe({
    isServing: () => health.isServing,
    isBusUp: () => bus.isUp(),
    clockDoubtMs: () => judge.doubtMs(),
    hub: () => hub.stats(),
    crowd: () => crowd.stats(),
    pools: { work: () => work.stats(), requests: () => requests.stats() },
    database: createNumbers({ db: requests.db, log }),
  });
}
