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
import { WatcherService } from "#gen/pinion/v1/watcher_pb.js";
import { within } from "../abort.ts";
import type { ReplicaConfig } from "../config.ts";
import { newId } from "../ids.ts";
import { createLogger, type Logger } from "../log.ts";
import { announce, cancelIn } from "../scheduler/cancels.ts";
import { createCompleter } from "../scheduler/completer.ts";
import { createDispatcher } from "../scheduler/dispatcher.ts";
import { type Loop, startLoop } from "../scheduler/loop.ts";
import { recordDue, startMaterializer } from "../scheduler/materializer.ts";
import { startExpirer, startReaper } from "../scheduler/reaper.ts";
import { retainOnce, startRetention } from "../scheduler/retention.ts";
import { backfill, trigger } from "../scheduler/triggers.ts";
import { warmUp } from "../scheduler/warm-up.ts";
import { type Bus, type BusHandlers, openPostgresBus } from "../server/bus.ts";
import { createDeviceStreams } from "../server/device/grpc-stream.ts";
import { createHub, type Hub } from "../server/device/hub.ts";
import { createDoorbell, type ReplicaDoorbell } from "../server/doorbell.ts";
import { createFeed } from "../server/feed.ts";
import { createGuard, requireRules } from "../server/guard.ts";
import { HealthState, registerHealth } from "../server/health.ts";
import { interceptorChain } from "../server/interceptors/chain.ts";
import { createConfigStarter } from "../server/platform-starter.ts";
import { createPlatformRunner } from "../server/platforms.ts";
import { type Handler, openPort } from "../server/port.ts";
import { registerReflection } from "../server/reflection.ts";
import { agentService } from "../server/rpc/agents.ts";
import { deviceService } from "../server/rpc/device.ts";
import { eventService } from "../server/rpc/events.ts";
import { type FleetScheduler, fleetService } from "../server/rpc/fleet.ts";
import { orgService } from "../server/rpc/orgs.ts";
import { runMessage } from "../server/rpc/run-message.ts";
import { runService } from "../server/rpc/runs.ts";
import { tokenService } from "../server/rpc/tokens.ts";
import { type WatcherScheduler, watcherService } from "../server/rpc/watchers.ts";
import { sortStrangers, strangerBytesMax } from "../server/strangers.ts";
import * as clock from "../store/clock.ts";
import { type Db, openDatabase } from "../store/database.ts";
import { migrate } from "../store/migrate.ts";
import { ensureBootstrap, provisionDefaultAgents } from "../store/orgs.ts";
import { isPooler } from "../store/pooled.ts";
import * as replicas from "../store/replicas.ts";
import { requireRoles } from "../store/tenancy.ts";

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
};

/** Connections of the scheduler and of the sessions' batchers; requests have a pool of their own. */
const workConnections = 8;
/** The tokens of open device streams are looked at this often: a lost word of a revocation costs no more. */
const tokensEveryMs = 5_000;
/** A replica says that it lives this often; others believe it for one TTL. */
const replicaBeatMs = 5_000;
const services: DescService[] = [
  DeviceService,
  WatcherService,
  RunService,
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
  requireRules(services);
  await migrate(config.directDatabaseUrl, log);

  // What is opened is closed in the opposite order, also if the start fails half-way.
  const opened = new AsyncDisposableStack();
  try {
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
    await retainOnce(work.db, { days: config.retentionDays, log });
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
    const hub: Hub = createHub({
      db: work.db,
      log,
      replicaId,
      config: config.session,
      policy: config.failures,
      feed,
      completer: () => completer,
      dispatcher: () => dispatcher,
      doorbell: () => doorbell,
    });
    const common = { db: work.db, log, policy: config.failures };
    doorbell = createDoorbell({
      db: work.db,
      log,
      replicaId,
      hub,
      feed,
      bus: () => bus,
      onBacklog: () => materializer.poke(),
      onRevoked: (tokenId) => guard.authCache.forget(tokenId),
    });
    opened.defer(() => doorbell.close());
    const completer = createCompleter({ ...common, doorbell });
    const dispatcher = createDispatcher({ ...common, doorbell });
    bus = await openBus({
      config,
      db: work.db,
      replicaId,
      log,
      handlers: {
        onMessage(message) {
          if (message.kind === "revoked") {
            guard.authCache.forget(message.tokenId);
            hub.revoke(message.tokenId);
          } else if (!feed.receive(message)) hub.receive(message);
        },
        onResync() {
          feed.wakeAll();
          // The first listening comes before the sweep, which begins with a pass.
          sweep?.poke();
        },
      },
    });
    opened.defer(() => bus.close());
    opened.defer(async () => {
      await Promise.all([completer.idle(), dispatcher.idle()]);
      await hub.close();
    });

    const loops = { ...common, doorbell, sweepMs: config.sweepIntervalMs };
    const materializer = startMaterializer(loops);
    sweep = startLoop({
      name: "sweep",
      log,
      async pass() {
        await hub.sweep();
        return config.sweepIntervalMs;
      },
    });
    const all = [
      materializer,
      sweep,
      startExpirer(loops),
      startReaper({ ...loops, rules: config.reaper, intervalMs: config.reaper.intervalMs }),
      startRetention({ db: work.db, log, days: config.retentionDays }),
      startLoop({
        name: "stream-tokens",
        log,
        async pass() {
          await hub.endExpired();
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
    });
    const runner = createPlatformRunner({
      db: requests.tenantDb,
      log,
      feed,
      ...config.secrets,
      starter: createConfigStarter(),
    });
    const health = new HealthState();
    const stopping = new AbortController();
    const rpcOptions = {
      interceptors: interceptorChain({ guard, log }),
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
        };
        const ttlMs = config.session.ttlMs;
        // A stream that is held for an hour is not worth a compressor's memory.
        router.service(DeviceService, deviceService({ ...deps, hub, completer }), { acceptCompression: [] });
        router.service(WatcherService, watcherService(deps));
        router.service(RunService, runService({ ...deps, policy: config.failures, ttlMs }));
        router.service(FleetService, fleetService({ ...deps, ttlMs }));
        router.service(TokenService, tokenService(deps));
        router.service(OrgService, orgService({ ...deps, ...config }));
        router.service(EventService, eventService(deps));
        router.service(AgentService, agentService({ ...deps, runner, publicUrl: config.publicUrl }));
        registerHealth(router, { state: health, services });
        registerReflection(router, services);
      },
    };
    const rpcWithin = (readMaxBytes: number) =>
      connectNodeAdapter({ ...rpcOptions, readMaxBytes }) as Handler;
    const rpc = sortStrangers({
      guard,
      known: rpcWithin(config.session.messageBytesMax),
      stranger: rpcWithin(strangerBytesMax),
    });
    const bare = createDeviceStreams({
      hub,
      guard,
      log,
      messageBytesMax: config.session.messageBytesMax,
    });
    const port = await openPort({
      host: config.host,
      port: config.port,
      log,
      ...(config.tls ? { tls: await readTls(config.tls) } : {}),
      ...(config.session.isBare ? { takeStream: bare.take } : {}),
      handler: withProbes(rpc, { health, db: requests.db }),
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
}): WatcherScheduler & FleetScheduler {
  const { db, policy, doorbell, poke } = deps;
  return {
    async trigger(asked) {
      const { run, alreadyQueued } = await trigger(db, asked, { doorbell });
      return { run: runMessage(run), alreadyQueued };
    },
    async backfill(asked) {
      const answer = await backfill(db, asked);
      poke();
      return answer;
    },
    recordDue,
    async cancelAllOfWatcher(tx, { orgId, watcherId, reason }) {
      const cancellation = await cancelIn(tx, { orgId, watcherId }, { reason, policy, mode: "ask" });
      return () => announce(doorbell, cancellation);
    },
    async cancelAllOfDevice(tx, { orgId, deviceId, reason }) {
      const cancellation = await cancelIn(tx, { orgId, deviceId }, { reason, policy, mode: "at_once" });
      return { cancelled: cancellation.settled.length, announce: () => announce(doorbell, cancellation) };
    },
    scheduleChanged({ orgId, deviceId }) {
      poke();
      doorbell.eventsAppended(orgId);
      if (deviceId) doorbell.work({ orgId, deviceId });
    },
  };
}

/** How long /readyz waits for the database. */
const readyWithinMs = 2_000;

/** `/healthz`: the process answers. `/readyz`: it takes work: not stopping, and the database answers. */
function withProbes(rpc: Handler, options: { health: HealthState; db: Db }): Handler {
  const answer = (response: Parameters<Handler>[1], status: number, text: string) => {
    response.statusCode = status;
    response.setHeader("content-type", "text/plain; charset=utf-8");
    response.end(`${text}\n`);
  };
  return (request, response) => {
    if (request.url === "/healthz") return answer(response, 200, "ok");
    if (request.url !== "/readyz") return rpc(request, response);
    if (!options.health.isServing) return answer(response, 503, "stopping");
    within(clock.now(options.db), readyWithinMs)
      .catch(() => undefined)
      .then((now) =>
        now ? answer(response, 200, "ok") : answer(response, 503, "the database does not answer"),
      );
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
