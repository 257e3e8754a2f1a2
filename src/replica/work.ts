/**
 * How runs and turns move: the sessions of devices (hub), what wakes them (doorbell, bus), who watches (feed), and the
 * services that claim and end attempts (dispatcher, completer, turn endings). They know of each other in a circle, which is
 * tied here.
 */
import type { ReplicaConfig } from "../config.ts";
import type { Logger } from "../log.ts";
import { type Completer, createCompleter } from "../scheduler/completer.ts";
import { createDispatcher, type Dispatcher } from "../scheduler/dispatcher.ts";
import { createPlacer, type Placer } from "../scheduler/placer.ts";
import { createTurnEndings, type TurnEndings } from "../scheduler/turn-endings.ts";
import { type Bus, type BusHandlers, openPostgresBus } from "../server/cluster/bus.ts";
import { createFeed, type Feed } from "../server/cluster/feed.ts";
import { createDoorbell, type ReplicaDoorbell } from "../server/device/doorbell.ts";
import { createHub, type Hub } from "../server/device/hub.ts";
import type { Db } from "../store/pg/database.ts";
import type { Access } from "./access.ts";
import type { Foundation } from "./foundation.ts";
import type { Storage } from "./storage.ts";

export type Work = {
  hub: Hub;
  feed: Feed;
  bus: Bus;
  doorbell: ReplicaDoorbell;
  completer: Completer;
  dispatcher: Dispatcher;
  placer: Placer;
};

/** How long after its timeout a turn is left to its worker, whose own report is the better one. */
const turnTimeoutGraceMs = 5_000;

/** `onBacklog` is told that more is due than was recorded, `onAsked` that a question waits, `onDeliveries` that something is to be sent, `onResync` that notifications may have been lost. */
export async function buildWork(
  { config, replicaId, log, telemetry, clock, opened }: Foundation,
  storage: Storage,
  { guard, streams, quotas }: Access,
  told: {
    onBacklog: () => void;
    onAsked: () => void;
    onDeliveries: () => void;
    onResync: () => void;
  },
): Promise<Work> {
  const { db } = storage.work;
  const common = { db, log, policy: config.failures };
  let bus: Bus;
  let doorbell: ReplicaDoorbell;
  const feed = createFeed({ bus: () => bus, replicaId });
  opened.defer(() => feed.close());
  const hub: Hub = createHub({
    ...common,
    streams,
    replicaId,
    clock,
    config: config.session,
    feed,
    telemetry,
    completer: () => completer,
    dispatcher: () => dispatcher,
    turnEndings: () => turnEndings,
    incarnation: storage.incarnation.current,
    doorbell: () => doorbell,
  });
  const onRevoked = (tokenId: string) => guard.authCache.forget(tokenId);
  doorbell = createDoorbell({
    ...{ db, log, replicaId, hub, clock, streams, feed, telemetry, onRevoked, ...told },
    bus: () => bus,
    placer: () => placer,
  });
  opened.defer(() => doorbell.close());
  const placer = createPlacer({
    ...{ db, log, quotas, ttlMs: config.session.ttlMs },
    ring: (placed) => doorbell.placed(placed),
    moved: (runs) => doorbell.moved(runs),
    announce: (orgId) => bus.broadcast({ kind: "held", orgId }),
  });
  opened.defer(() => {
    placer.stop();
    return placer.idle();
  });
  const completer = createCompleter({ ...common, doorbell, onBatch: telemetry.batch("completions") });
  const turnEndings: TurnEndings = createTurnEndings({ ...common, doorbell });
  const dispatcher = createDispatcher({
    ...common,
    doorbell,
    onBatch: telemetry.batch("claims"),
    turns: {
      timers: { ttlMs: config.session.ttlMs, timeoutGraceMs: turnTimeoutGraceMs },
      endings: turnEndings,
    },
  });
  const handlers: BusHandlers = {
    onMessage(message) {
      if (message.kind === "revoked") {
        onRevoked(message.tokenId);
        streams.revoke(message.tokenId);
      } else if (message.kind === "held") placer.heard(message.orgId);
      else if (!feed.receive(message)) hub.receive(message);
    },
    onResync() {
      feed.wakeAll();
      told.onResync();
    },
  };
  bus = await openBus({ config, db, replicaId, log, handlers });
  opened.defer(() => bus.close());
  feed.introduce();
  opened.defer(async () => {
    await Promise.all([completer.idle(), dispatcher.idle(), turnEndings.idle()]);
    await hub.close();
  });
  return { hub, feed, bus, doorbell, completer, dispatcher, placer };
}

/** The bus that is configured. The NATS client is loaded only where it is asked for. */
async function openBus(options: {
  config: ReplicaConfig;
  db: Db;
  replicaId: string;
  handlers: BusHandlers;
  log: Logger;
}): Promise<Bus> {
  const { config, db, ...common } = options;
  if (!config.nats) return openPostgresBus({ ...common, db, listenUrl: config.directDatabaseUrl });
  const { openNatsBus } = await import("../server/cluster/bus-nats.ts");
  return openNatsBus({ ...common, nats: config.nats });
}
