/**
 * Processing of runs and turns. Each part knows only the parts before: the publisher tells all
 * others the changes of a commit, and the inbox delivers messages of other replicas.
 */
import type { ReplicaConfig } from "../config.ts";
import { Dispatcher } from "../scheduler/dispatcher.ts";
import { createEndings } from "../scheduler/endings/endings.ts";
import { runEndings } from "../scheduler/endings/run-endings.ts";
import { turnEndings } from "../scheduler/endings/turn-endings.ts";
import { createPlacer, type Placer, placerSubscriber } from "../scheduler/placing/placer.ts";
import { createPublisher, type Publisher } from "../scheduler/publisher.ts";
import { SecondLooks } from "../scheduler/second-looks.ts";
import type { Hold } from "../scheduler/slots/recording.ts";
import { type Bus, type BusHandlers, openPostgresBus } from "../server/cluster/bus.ts";
import { createFeed, type Feed, feedSubscriber } from "../server/cluster/feed.ts";
import { createInbox, type Inbox } from "../server/cluster/inbox.ts";
import { createTails } from "../server/device/attempts/tails.ts";
import { createDeviceLogs, type DeviceLogs } from "../server/device/hub/device-logs.ts";
import { createDoorbell, createRings, type Rings } from "../server/device/hub/doorbell.ts";
import { createHub, type Hub } from "../server/device/hub/hub.ts";
import { createStreamEnds, type StreamEnds } from "../server/device/stream/stream-ends.ts";
import { createOffers, type Offers } from "../server/http/offers.ts";
import type { Db } from "../store/pg/database.ts";
import type { Looks } from "../store/pg/looks.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Access } from "./access.ts";
import type { Foundation } from "./foundation.ts";
import type { Storage } from "./storage.ts";

export type Work = {
  /** The programs that this server gives. */
  offers: Offers;
  hub: Hub;
  /** The ends of daemons' logs, for people who ask. */
  deviceLogs: DeviceLogs;
  feed: Feed;
  bus: Bus;
  inbox: Inbox;
  publisher: Publisher;
  streamEnds: StreamEnds;
  hold: Hold;
  placer: Placer;
};

/** Time after a turn's timeout during which the worker's own report is preferred, in ms. */
const turnTimeoutGraceMs = 5_000;

export async function buildWork(
  { config, replicaId, log, telemetry, clock, opened }: Foundation,
  storage: Storage,
  { guard, streams, quotas }: Access,
): Promise<Work> {
  const { db } = storage.work;
  const publisher = createPublisher({ log });
  const common = {
    ...{ db, looks: storage.looks, log, replicaId, cell: config.cell, clock, telemetry, streams },
    policy: { ...config.failures, quotas },
    doorbell: publisher,
  };
  const inbox = createInbox({ log });
  const bus = await openBus({ config, db, replicaId, log, handlers: inbox });
  opened.defer(() => bus.close());
  const feed = createFeed({ bus, replicaId, log });
  opened.defer(() => feed.close());
  inbox.add({ receive: (message) => feed.receive(message), onResync: () => feed.wakeAll() });

  const placer = openPlacer({ ...common, ttlMs: config.session.ttlMs, publisher, inbox, bus, opened });
  const endings = openEndings(common, telemetry);
  const timers = { ttlMs: config.session.ttlMs, timeoutGraceMs: turnTimeoutGraceMs };
  const secondLooks: SecondLooks = new SecondLooks({ ...common, wake: (seat) => dispatcher.wake(seat) });
  const dispatcher = new Dispatcher({
    ...common,
    turns: { timers, endings: endings.turn },
    onBatch: telemetry.batch("claims"),
    onLess: (seat, kind) => secondLooks.passed(seat, kind),
  });
  const { current: incarnation } = storage.incarnation;
  const offers = createOffers(config.downloads);
  const deviceLogs = createDeviceLogs({ replicaId, bus, ring: (message) => rings.ring(message) });
  inbox.add({ receive: (message) => deviceLogs.receive(message) });
  const onLog: DeviceLogs["arrived"] = (excerpt) => deviceLogs.arrived(excerpt);
  const services = { publisher, endings, dispatcher, feed, incarnation, offers, onLog };
  const hub = createHub({ ...common, ...services, config: config.session });
  const rings: Rings = createRings({ ...common, hub, bus });
  opened.defer(() => rings.close());
  const streamEnds = createStreamEnds({ hub, bus, streams, authCache: guard.authCache });
  inbox.add(streamEnds);
  inbox.add(hub);
  const tails = createTails({ db, log, feed, bus });
  inbox.add(tails);
  const doorbell = createDoorbell({ rings, replicaId, hub, bus, clock });
  // The tails before the feed, because the feed drops the output of an ended run.
  const subscribers = [telemetry, tails, feedSubscriber(feed), doorbell, placerSubscriber(placer)];
  for (const one of subscribers) publisher.subscribe(one);
  feed.introduce();
  opened.defer(async () => {
    await secondLooks.close();
    await Promise.all([endings.run.idle(), dispatcher.idle(), endings.turn.idle()]);
    await hub.close();
    await tails.idle();
  });
  const hold = holdOf(dispatcher, hub);
  return { offers, hub, deviceLogs, feed, bus, inbox, publisher, streamEnds, hold, placer };
}

/** Finds the sessions of devices for the dispatcher. */
function holdOf(dispatcher: Dispatcher, hub: Hub): Hold {
  return (devices) => dispatcher.hold(devices.map((device) => hub.seatOf(device)));
}

function openEndings(
  common: Parameters<typeof runEndings>[0] & Parameters<typeof turnEndings>[0] & { db: Db; log: Logger },
  telemetry: Foundation["telemetry"],
) {
  const batches = { onReports: telemetry.batch("completions"), onEndings: telemetry.batch("settlements") };
  return {
    run: createEndings(runEndings(common), { ...common, ...batches }),
    turn: createEndings(turnEndings(common), common),
  };
}

/** Places held runs of orgs that this replica heard of, by itself or from other replicas. */
function openPlacer(
  options: Pick<Foundation, "log" | "opened"> &
    Pick<Work, "publisher" | "inbox" | "bus"> & {
      db: Db;
      looks: Looks;
      ttlMs: number;
      policy: { quotas: Access["quotas"] };
    },
): Placer {
  const { db, looks, log, ttlMs, policy, publisher, inbox, bus, opened } = options;
  const placer = createPlacer({
    ...{ db, looks, log, ttlMs, quotas: policy.quotas },
    ring: publisher.placed,
    moved: publisher.moved,
    announce: (orgId) => bus.broadcast({ kind: "held", orgId }),
  });
  opened.defer(() => {
    placer.stop();
    return placer.idle();
  });
  inbox.add({
    receive(message) {
      if (message.kind === "held") placer.heard(message.orgId);
      return message.kind === "held";
    },
  });
  return placer;
}

/** Opens the configured bus. The NATS client is loaded only if configured. */
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
