import { readFile } from "node:fs/promises";
import type { DescService } from "@bufbuild/protobuf";
import type { ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { AgentService } from "#gen/pinion/v1/agent_pb.js";
import { DeviceService } from "#gen/pinion/v1/device_pb.js";
import { EventService } from "#gen/pinion/v1/event_pb.js";
import { FleetService } from "#gen/pinion/v1/fleet_pb.js";
import { OrgService } from "#gen/pinion/v1/org_pb.js";
import { RunService } from "#gen/pinion/v1/run_pb.js";
import { TokenService } from "#gen/pinion/v1/token_pb.js";
import { TurnService } from "#gen/pinion/v1/turn_pb.js";
import { WatcherService } from "#gen/pinion/v1/watcher_pb.js";
import { within } from "../abort.ts";
import type { ReplicaConfig } from "../config.ts";
import { newId } from "../ids.ts";
import { createLogger, type Logger } from "../log.ts";
import { createMetrics, type Metrics } from "../metrics.ts";
import { announce, cancelIn } from "../scheduler/cancels.ts";
import { createCompleter } from "../scheduler/completer.ts";
import { createDispatcher } from "../scheduler/dispatcher.ts";
import { type Loop, startLoop } from "../scheduler/loop.ts";
import { recordDue, startMaterializer } from "../scheduler/materializer.ts";
import { startExpirer, startReaper } from "../scheduler/reaper.ts";
import { retainOnce, startRetention } from "../scheduler/retention.ts";
import { backfill, trigger } from "../scheduler/triggers.ts";
import { createTurnEndings } from "../scheduler/turn-endings.ts";
import { startTurnSweep } from "../scheduler/turn-sweep.ts";
import { endTurnsOfDevice } from "../scheduler/turns-of-device.ts";
import { warmUp } from "../scheduler/warm-up.ts";
import { type Bus, type BusHandlers, openPostgresBus } from "../server/bus.ts";
import { createDeviceStreams } from "../server/device/grpc-stream.ts";
import { createHub, type Hub } from "../server/device/hub.ts";
import { createDoorbell, type ReplicaDoorbell } from "../server/doorbell.ts";
import { createFeed } from "../server/feed.ts";
import { createGuard, requireRules } from "../server/guard.ts";
import { HealthState, registerHealth } from "../server/health.ts";
import { interceptorChain } from "../server/interceptors/chain.ts";
import { createLastLine, type LastLine } from "../server/last-line.ts";
import { createLimits } from "../server/limits.ts";
import { peerValues } from "../server/peer.ts";
import { secretKeys } from "../server/platform-kinds.ts";
import { createConfigStarter } from "../server/platform-starter.ts";
import { createPlatformRunner } from "../server/platforms.ts";
import { type Handler, openPort } from "../server/port.ts";
import { createNumbers, startHealthLook, withProbes } from "../server/probes.ts";
import { registerReflection } from "../server/reflection.ts";
import { agentService } from "../server/rpc/agents.ts";
import { deviceService } from "../server/rpc/device.ts";
import { eventService } from "../server/rpc/events.ts";
import { type FleetScheduler, fleetService } from "../server/rpc/fleet.ts";
import { orgService } from "../server/rpc/orgs.ts";
import { runMessage } from "../server/rpc/run-message.ts";
import { runService } from "../server/rpc/runs.ts";
import { tokenService } from "../server/rpc/tokens.ts";
import { turnService } from "../server/rpc/turns.ts";
import { type WatcherScheduler, watcherService } from "../server/rpc/watchers.ts";
import { sortStrangers, strangerBytesMax } from "../server/strangers.ts";
import { createStreams } from "../server/streams.ts";
import { createTelemetry } from "../server/telemetry.ts";
import { loadPage, withPage } from "../server/web/page.ts";
import { type Db, openDatabase } from "../store/database.ts";
import { migrate } from "../store/migrate.ts";
import { ensureBootstrap, provisionDefaultAgents } from "../store/orgs.ts";
import { healSecretSettings } from "../store/platform-healing.ts";
import { isPooler } from "../store/pooled.ts";
import { createQuotas, type Quotas } from "../store/quotas.ts";
import * as replicas from "../store/replicas.ts";
import { requireRoles } from "../store/tenancy.ts";
import { openTracer } from "../tracing.ts";
import { version } from "./version.ts";

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

/** Connections of the scheduler and of the sessions' batchers; requests have a pool of their own. */
const workConnections = 8;
/** The tokens of open streams are looked at this often, so that they end within 5 s of their token also if the word was lost. */
const tokensEveryMs = 4_000;
/** How long after its timeout a turn is left to its worker, whose own report is the better one. */
const turnTimeoutGraceMs = 5_000;
/** A replica says that it lives this often; others believe it for one TTL. */
const replicaBeatMs = 5_000;
const services: DescService[] = [
  DeviceService,
  WatcherService,
  RunService,
  TurnService,
  FleetService,
  TokenService,
  OrgService,
  EventService,
  AgentService,
];

/** Starts a replica: where the server and the scheduler meet. Rejects with an error that says what to do. */
export async function startReplica(
  config: ReplicaConfig,
  options: {
    log?: Logger;
    /** Puts the first start's token where people find it; called before it is committed. */
    keepBootstrapToken?: (token: string) => void;
  } = {},
): Promise<Replica> {
  const replicaId = newId();
  const log = (options.log ?? createLogger({ name: "pinion", level: config.logLevel })).child({ replicaId });
  const metrics = createMetrics({ version: version() });
  requireRules(services);
  await migrate(config.directDatabaseUrl, log);

  // What is opened is closed in the opposite order, also if the start fails half-way.
  const opened = new AsyncDisposableStack();
  try {
    opened.defer(() => metrics.close());
    const tracer = config.tracing
      ? await openTracer(config.tracing, {
          service: "pinion",
          version: version(),
          instanceId: replicaId,
          log,
        })
      : undefined;
    opened.defer(() => tracer?.close());
    const telemetry = createTelemetry({ metrics, tracer });
    const isPooled = isPooler({ url: config.databaseUrl, directUrl: config.directDatabaseUrl });
    const work = openDatabase({
      url: config.databaseUrl,
      poolMax: workConnections,
      applicationName: "pinion-work",
      isPooled,
      log,
    });
    opened.defer(() => work.close());
    const requests = openDatabase({
      url: config.databaseUrl,
      poolMax: config.connectionsMax,
      applicationName: "pinion-requests",
      isPooled,
      log,
    });
    opened.defer(() => requests.close());
    await requireRoles(work.db);
    const bootstrap = await ensureBootstrap(work.db, config, options.keepBootstrapToken);
    await provisionDefaultAgents(work.db, config);
    const { left } = await healSecretSettings(work.db, { ...config.secrets, secretKeys });
    if (left > 0)
      log.warn({ platforms: left }, "platforms hold secrets that are not encrypted; set PINION_SECRET_KEYS");
    const age = { days: config.retentionDays, conversationDays: config.conversationDays };
    await retainOnce(work.db, { ...age, log });
    await warmUp(work.db, config.failures);

    let isStopping = false;
    const replica = { id: replicaId, address: `${config.host}:${config.port}` };
    await replicas.beat(work.db, replica);
    opened.defer(() =>
      replicas
        .remove(work.db, replicaId)
        .catch((error) => log.warn({ err: error }, "not taken off the list")),
    );

    let bus: Bus;
    let sweep: Loop | undefined;
    let doorbell: ReplicaDoorbell;
    const feed = createFeed({ bus: () => bus, replicaId });
    opened.defer(() => feed.close());
    const guard = createGuard({ db: requests.db, log });
    opened.defer(() => guard.close());
    const streams = createStreams({ db: work.db });
    const hub: Hub = createHub({
      streams,
      db: work.db,
      log,
      replicaId,
      config: config.session,
      policy: config.failures,
      feed,
      telemetry,
      completer: () => completer,
      dispatcher: () => dispatcher,
      turnEndings: () => turnEndings,
      doorbell: () => doorbell,
    });
    const common = { db: work.db, log, policy: config.failures };
    doorbell = createDoorbell({
      db: work.db,
      log,
      replicaId,
      hub,
      streams,
      feed,
      telemetry,
      bus: () => bus,
      onBacklog: () => materializer.poke(),
      onRevoked: (tokenId) => guard.authCache.forget(tokenId),
    });
    opened.defer(() => doorbell.close());
    const completer = createCompleter({ ...common, doorbell, onBatch: telemetry.batch("completions") });
    const turnEndings = createTurnEndings({ ...common, doorbell });
    const turnTimers = { ttlMs: config.session.ttlMs, timeoutGraceMs: turnTimeoutGraceMs };
    const dispatcher = createDispatcher({
      ...common,
      doorbell,
      onBatch: telemetry.batch("claims"),
      turns: { timers: turnTimers, endings: turnEndings },
    });
    bus = await openBus({
      config,
      db: work.db,
      replicaId,
      log,
      handlers: {
        onMessage(message) {
          if (message.kind === "revoked") {
            guard.authCache.forget(message.tokenId);
            streams.revoke(message.tokenId);
          } else if (!feed.receive(message)) hub.receive(message);
        },
        onResync() {
          feed.wakeAll();
          // The first listening comes before the bus is there, and before the sweep, which begins with a pass.
          if (!sweep) return;
          feed.introduce();
          sweep.poke();
        },
      },
    });
    opened.defer(() => bus.close());
    feed.introduce();
    opened.defer(async () => {
      await Promise.all([completer.idle(), dispatcher.idle(), turnEndings.idle()]);
      await hub.close();
    });

    const quotas = createQuotas(config.quotas);
    const loops = { ...common, doorbell, sweepMs: config.sweepIntervalMs };
    const materializer = startMaterializer({
      ...loops,
      quotas,
      claimHere: (tx, runs) => {
        const pending = runs.filter((run) => run.status === "pending");
        return dispatcher.claimWithin(
          tx,
          pending.flatMap((run) => hub.seatOf(run) ?? []),
        );
      },
    });
    sweep = startLoop({
      name: "sweep",
      log,
      async pass() {
        await hub.sweep();
        return config.sweepIntervalMs;
      },
    });
    const health = new HealthState();
    const all = [
      materializer,
      sweep,
      startHealthLook({ db: requests.db, health, log }),
      startExpirer(loops),
      startTurnSweep({ ...loops, ttlMs: config.session.ttlMs, intervalMs: config.reaper.intervalMs }),
      startReaper({
        ...loops,
        rules: config.reaper,
        intervalMs: config.reaper.intervalMs,
        onReaped: telemetry.reaped,
      }),
      startRetention({ ...age, db: work.db, log }),
      startLoop({
        name: "stream-tokens",
        log,
        async pass() {
          await streams.endExpired();
          return tokensEveryMs;
        },
      }),
      startLoop({
        name: "replica-beat",
        log,
        async pass() {
          if (!isStopping) await replicas.beat(work.db, replica);
          return replicaBeatMs;
        },
      }),
    ];
    opened.defer(async () => {
      await Promise.all(all.map((loop) => loop.stop()));
    });

    const scheduler = schedulerOf({
      ...common,
      db: requests.tenantDb,
      doorbell,
      poke: () => materializer.poke(),
      metrics,
      quotas,
    });
    const runner = createPlatformRunner({
      db: requests.tenantDb,
      log,
      feed,
      ...config.secrets,
      starter: createConfigStarter(),
    });
    metrics.observe({
      isServing: () => health.isServing,
      isBusUp: () => bus.isUp(),
      hub: () => hub.stats(),
      pools: { work: () => work.stats(), requests: () => requests.stats() },
      database: createNumbers({ db: requests.db, log }),
    });
    const stopping = new AbortController();
    const limits = createLimits(config.rates);
    const rpcOptions = {
      interceptors: interceptorChain({
        guard,
        log,
        streams,
        tracer,
        onCall: metrics.called,
        bounds: { limits, ...config.rates, quotas, db: requests.tenantDb },
      }),
      contextValues: (request: Parameters<typeof peerValues>[0]) =>
        peerValues(request, config.trustedProxies),
      // A mistyped field would otherwise be passed over, and with it a limit that somebody meant to set.
      jsonOptions: { ignoreUnknownFields: false },
      shutdownSignal: stopping.signal,
      routes(router: ConnectRouter) {
        const deps = {
          db: requests.tenantDb,
          crossOrgDb: requests.db,
          feed,
          doorbell,
          scheduler,
          authCache: guard.authCache,
          telemetry,
        };
        const ttlMs = config.session.ttlMs;
        // A stream that is held for an hour is not worth a compressor's memory.
        router.service(DeviceService, deviceService({ ...deps, hub }), { acceptCompression: [] });
        router.service(WatcherService, watcherService({ ...deps, quotas }));
        router.service(RunService, runService({ ...deps, policy: config.failures, ttlMs }));
        router.service(TurnService, turnService(deps));
        router.service(FleetService, fleetService({ ...deps, ttlMs }));
        router.service(TokenService, tokenService(deps));
        router.service(OrgService, orgService({ ...deps, ...config }));
        router.service(EventService, eventService(deps));
        router.service(AgentService, agentService({ ...deps, runner, log, publicUrl: config.publicUrl }));
        registerHealth(router, { state: health, services });
        registerReflection(router, services);
      },
    };
    const rpcWithin = (readMaxBytes: number) =>
      connectNodeAdapter({ ...rpcOptions, readMaxBytes }) as Handler;
    const rpc = sortStrangers({
      guard,
      limits,
      trustedProxies: config.trustedProxies,
      known: rpcWithin(config.session.messageBytesMax),
      stranger: rpcWithin(strangerBytesMax),
    });
    const bare = createDeviceStreams({
      hub,
      guard,
      limits,
      trustedProxies: config.trustedProxies,
      log,
      messageBytesMax: config.session.messageBytesMax,
    });
    const lastLine = createLastLine({ log, onUncaught: metrics.uncaught });
    const port = await openPort({
      host: config.host,
      port: config.port,
      log,
      lastLine,
      ...(config.tls ? { tls: await readTls(config.tls) } : {}),
      ...(config.session.isBare ? { takeStream: bare.take } : {}),
      handler: withPage(
        withProbes({
          rpc,
          health,
          db: requests.db,
          isBusUp: () => bus.isUp(),
          metrics,
          metricsToken: config.metricsToken,
        }),
        loadPage(),
      ),
    });
    replica.address = port.url;
    health.setServing(true);
    log.info({ url: port.url }, "the replica serves");

    let stopped: Promise<void> | undefined;
    let resolveClosed: () => void;
    const closed = new Promise<void>((resolve) => {
      resolveClosed = resolve;
    });
    async function stop(): Promise<void> {
      isStopping = true;
      log.info("the replica stops");
      health.setServing(false);
      port.drain();
      await hub.drain(config.shutdownMs / 2);
      stopping.abort();
      await port.close(config.shutdownMs / 4);
      if (
        (await within(
          opened.disposeAsync().then(() => true),
          config.shutdownMs / 4,
        )) !== true
      ) {
        log.warn("the replica did not close in time");
      }
      log.info("the replica has stopped");
      resolveClosed();
    }
    return {
      url: port.url,
      port: port.port,
      replicaId,
      bootstrapToken: bootstrap?.secret,
      closed,
      uncaught: lastLine.uncaught,
      stop: () => {
        stopped ??= stop();
        return stopped;
      },
    };
  } catch (error) {
    await opened.disposeAsync();
    throw error;
  }
}

/** The bus that is configured. Only who wants NATS waits for its client to load. */
async function openBus(options: {
  config: ReplicaConfig;
  db: Db;
  replicaId: string;
  handlers: BusHandlers;
  log: Logger;
}): Promise<Bus> {
  const { config, db, ...common } = options;
  if (!config.nats) return openPostgresBus({ ...common, db, listenUrl: config.directDatabaseUrl });
  const { openNatsBus } = await import("../server/bus-nats.ts");
  return openNatsBus({ ...common, nats: config.nats });
}

/** What the rpcs ask of the scheduler. */
function schedulerOf(deps: {
  db: Db;
  policy: ReplicaConfig["failures"];
  doorbell: ReplicaDoorbell;
  poke: () => void;
  metrics: Pick<Metrics, "recorded">;
  quotas: Quotas;
  log: Logger;
}): WatcherScheduler & FleetScheduler {
  const { db, policy, doorbell, poke, quotas } = deps;
  return {
    async trigger({ request, ...asked }) {
      const { run, alreadyQueued } = await trigger(db, asked, {
        doorbell,
        quotas,
        ...(request ? { request } : {}),
      });
      return { run: runMessage(run), alreadyQueued };
    },
    async backfill(asked) {
      const answer = await backfill(db, asked);
      poke();
      return answer;
    },
    async recordDue(tx, orgId, watcherId) {
      const events = await recordDue(tx, orgId, watcherId, quotas);
      for (const { kind, data } of events) {
        const isSkipped = kind === "run.skipped";
        deps.metrics.recorded(isSkipped ? "skipped" : "pending", String(data?.skip_reason ?? ""));
      }
      return events;
    },
    async cancelAllOfWatcher(tx, { orgId, watcherId, reason }) {
      const cancellation = await cancelIn(tx, { orgId, watcherId }, { reason, policy, mode: "ask" });
      return () => announce(doorbell, cancellation);
    },
    async cancelAllOfDevice(tx, { orgId, deviceId, reason }) {
      const turns = await endTurnsOfDevice(tx, { orgId, deviceId, reason }, { log: deps.log });
      const cancellation = await cancelIn(tx, { orgId, deviceId }, { reason, policy, mode: "at_once" });
      await turns.append();
      const cancelled = cancellation.settled.filter((run) => run.status === "cancelled").length;
      return {
        cancelled,
        announce: () => {
          announce(doorbell, cancellation);
          doorbell.turnsEnded(turns.ended);
        },
      };
    },
    scheduleChanged({ orgId, deviceId }) {
      poke();
      doorbell.eventsAppended(orgId);
      if (deviceId) doorbell.work({ orgId, deviceId });
    },
  };
}

async function readTls(tls: NonNullable<ReplicaConfig["tls"]>) {
  const [cert, key, ca] = await Promise.all([
    readFile(tls.certFile),
    readFile(tls.keyFile),
    tls.clientCaFile ? readFile(tls.clientCaFile) : undefined,
  ]);
  return ca ? { cert, key, ca, requestCert: true, rejectUnauthorized: true } : { cert, key };
}
