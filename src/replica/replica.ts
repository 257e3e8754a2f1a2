/**
 * A replica, put together: storage, access, work, loops, rpc, in this order. Each builder opens its part and defers its
 * closing; what this file adds is the order of the start and of the stop.
 */
import { within } from "../abort.ts";
import type { ReplicaConfig } from "../config.ts";
import { DatabaseClock } from "../database-clock.ts";
import { newId } from "../ids.ts";
import { createLogger, type Logger } from "../log.ts";
import { createMetrics } from "../metrics.ts";
import { type Clock, startClock } from "../scheduler/clock.ts";
import { retainOnce } from "../scheduler/retention.ts";
import { warmUp } from "../scheduler/warm-up.ts";
import { requireRules } from "../server/access/guard.ts";
import { peerAddressOf } from "../server/access/peer.ts";
import { type Crowd, createCrowd } from "../server/http/crowd.ts";
import { HealthState } from "../server/http/health.ts";
import { createLastLine, type LastLine } from "../server/http/last-line.ts";
import { reachableHost } from "../server/http/port.ts";
import { createNumbers } from "../server/http/probes.ts";
import { createTelemetry } from "../server/telemetry.ts";
import { migrate } from "../store/pg/migrate.ts";
import * as replicas from "../store/work/replicas.ts";
import { openTracer } from "../tracing.ts";
import { version } from "../version.ts";
import { buildAccess } from "./access.ts";
import type { Foundation } from "./foundation.ts";
import { type Loops, startLoops } from "./loops.ts";
import { openRpc, services } from "./rpc.ts";
import { openStorage, type Storage } from "./storage.ts";
import { buildWork, type Work } from "./work.ts";

/** A running replica. */
export type Replica = {
  /** How to reach it from this machine. */
  url: string;
  port: number;
  replicaId: string;
  /** The token of the first start; only on an empty database, and only here. */
  bootstrapToken: string | undefined;
  /** Drains the devices, writes what waits and closes, within the configured time. Idempotent. */
  stop(): Promise<void>;
  /** Resolves when it has stopped. */
  closed: Promise<void>;
  /** Takes an error that arrived at the process: ends the request that it belongs to, counts and logs it. */
  uncaught: LastLine["uncaught"];
};

export type StartOptions = {
  log?: Logger;
  /** Puts the first start's token where people find it; called before it is committed. */
  keepBootstrapToken?: (token: string) => void;
};

/** Starts a replica. Rejects with an error that says what to do. */
export async function startReplica(config: ReplicaConfig, options: StartOptions = {}): Promise<Replica> {
  const replicaId = newId();
  const log = (options.log ?? createLogger({ name: "pinion", level: config.logLevel })).child({ replicaId });
  requireRules(services);
  await migrate(config.directDatabaseUrl, log);
  const opened = new AsyncDisposableStack();
  try {
    const foundation = await layFoundation({ config, replicaId, log, opened });
    return await build(foundation, options);
  } catch (error) {
    await opened.disposeAsync();
    throw error;
  }
}

async function layFoundation(
  own: Pick<Foundation, "config" | "replicaId" | "log" | "opened">,
): Promise<Foundation> {
  const { config, replicaId, log, opened } = own;
  const metrics = createMetrics({ version: version() });
  opened.defer(() => metrics.close());
  const named = { service: "pinion", version: version(), instanceId: replicaId, log };
  const tracer = config.tracing ? await openTracer(config.tracing, named) : undefined;
  opened.defer(() => tracer?.close());
  const lastLine = createLastLine({ log, onUncaught: metrics.uncaught });
  const telemetry = createTelemetry({ metrics, tracer });
  return { ...own, metrics, tracer, telemetry, lastLine, clock: new DatabaseClock() };
}

async function build(foundation: Foundation, options: StartOptions): Promise<Replica> {
  const { config, replicaId, log, opened } = foundation;
  const storage = await openStorage(foundation, { keepBootstrapToken: options.keepBootstrapToken });
  const { db } = storage.work;
  let loops: Loops | undefined;
  const judge = await startClock({
    ...{ db, log, replicaId, policy: config.clockJump },
    onBack: () => loops?.replanner.now(),
  });
  opened.defer(() => judge.stop());
  if (judge.doubtMs() === 0)
    await retainOnce(db, { days: config.retentionDays, conversationDays: config.conversationDays, log });
  await warmUp(db, config.failures);

  const replica = { id: replicaId, address: `${reachableHost(config.host)}:${config.port}` };
  await replicas.beat(db, replica);
  opened.defer(() =>
    replicas.remove(db, replicaId).catch((error) => log.warn({ err: error }, "not taken off the list")),
  );

  let isStopping = false;
  const onDeliveries = () => loops?.deliverer.poke();
  const access = buildAccess(foundation, storage);
  const work = await buildWork(foundation, storage, access, {
    onBacklog: () => loops?.materializer.poke(),
    onAsked: () => loops?.questions.poke(),
    onDeliveries,
    // The first listening comes before the sweep, which begins with a pass.
    onResync() {
      if (!loops) return;
      work.feed.introduce();
      loops.sweep.poke();
    },
  });
  const health = new HealthState();
  loops = startLoops(foundation, storage, access, work, {
    ...{ health, replica, judge },
    isStopping: () => isStopping,
  });
  const crowd = createCrowd({
    connectionsMax: config.strangers.connections,
    ...config.strangers,
    knownBytesMax: config.bodyBytesMax,
    isBehindProxies: config.trustedProxies > 0,
    addressOf: (headers, remoteAddress) => peerAddressOf(headers, remoteAddress, config.trustedProxies),
    onCut: foundation.metrics.peerCut,
  });
  opened.defer(() => crowd.close());
  observe(foundation, storage, work, { health, crowd, judge });

  const stopping = new AbortController();
  const poke = () => loops?.materializer.poke();
  const own = { health, crowd, shutdownSignal: stopping.signal, poke, onDeliveries };
  const port = await openRpc(foundation, storage, access, work, own);
  replica.address = port.url;
  health.setServing(true);
  log.info({ url: port.url }, "the replica serves");

  const { promise: closed, resolve: resolveClosed } = Promise.withResolvers<void>();
  async function stop(): Promise<void> {
    isStopping = true;
    log.info("the replica stops");
    health.setServing(false);
    port.drain();
    await work.hub.drain(config.shutdownMs / 2);
    stopping.abort();
    await port.close(config.shutdownMs / 4);
    const disposed = opened.disposeAsync().then(() => true);
    if ((await within(disposed, config.shutdownMs / 4)) !== true)
      log.warn("the replica did not close in time");
    log.info("the replica has stopped");
    resolveClosed();
  }
  let stopped: Promise<void> | undefined;
  return {
    url: port.url,
    port: port.port,
    replicaId,
    bootstrapToken: storage.bootstrapToken,
    closed,
    uncaught: foundation.lastLine.uncaught,
    stop: () => {
      stopped ??= stop();
      return stopped;
    },
  };
}

function observe(
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
