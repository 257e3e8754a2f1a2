import type { ReplicaConfig } from "../../../config.ts";
import type { Dispatcher } from "../../../scheduler/dispatcher.ts";
import { announceEnds } from "../../../scheduler/doorbell.ts";
import { type Endings, type Reports, reportsOf } from "../../../scheduler/endings/endings.ts";
import { failTurnsOfSessions } from "../../../scheduler/endings/turn-sweep.ts";
import type { Publisher } from "../../../scheduler/publisher.ts";
import { ask, closeByDevice } from "../../../scheduler/questions.ts";
import * as clock from "../../../store/pg/clock.ts";
import type { Db } from "../../../store/pg/database.ts";
import { transaction } from "../../../store/pg/database.ts";
import type { Incarnation } from "../../../store/pg/incarnation.ts";
import type { Looks } from "../../../store/pg/looks.ts";
import type { FailurePolicy } from "../../../store/work/attempts/settlements.ts";
import * as restorations from "../../../store/work/runs/restorations.ts";
import * as turnRestorations from "../../../store/work/turns/turn-restorations.ts";
import type { Logger } from "../../../telemetry/log.ts";
import type { DatabaseClock } from "../../../time/database-clock.ts";
import { TimerWheel } from "../../../time/timer-wheel.ts";
import type { Streams } from "../../access/streams.ts";
import type { Feed } from "../../cluster/feed.ts";
import type { Offers } from "../../http/offers.ts";
import type { Telemetry } from "../../telemetry.ts";
import { DueWheel } from "../attempts/due-wheel.ts";
import type { AttemptKind, Works } from "../attempts/work.ts";
import { createWorks } from "../attempts/works.ts";
import type { Opening } from "../reconcile/reconcile.ts";
import { createOpenings } from "../session/opening.ts";
import type { Session } from "../session/session.ts";
import type { SessionServices } from "../session/session-services.ts";
import type { DeviceLogs } from "./device-logs.ts";
import { type PresenceWriter, startPresenceWriter } from "./presence-writer.ts";
import { createRegistry, type Registry } from "./registry.ts";

export type HubDeps = {
  db: Db;
  looks: Looks;
  /** The open streams by token, which end with their tokens. */
  streams: Streams;
  log: Logger;
  replicaId: string;
  /** The name in agents' tokens; "" for none. */
  cell: string;
  clock: DatabaseClock;
  config: ReplicaConfig["session"];
  policy: FailurePolicy;
  feed: Feed;
  telemetry: Telemetry;
  /** The database behind `db`, as far as known. */
  incarnation: () => Incarnation | undefined;
  /** The end of a device's log has arrived. */
  onLog: (excerpt: Parameters<DeviceLogs["arrived"]>[0]) => void;
  /** The programs that this server gives. */
  offers: Pick<Offers, "version" | "refresh">;
  endings: Readonly<Record<AttemptKind, Endings>>;
  dispatcher: Dispatcher;
  publisher: Publisher;
};

/** The shared parts of a hub. */
export type Parts = {
  registry: Registry;
  works: Works;
  wheel: DueWheel;
  /** The sessions' own deadlines. */
  timers: TimerWheel;
  presence: PresenceWriter;
  report: Reports;
};

export function createParts(deps: HubDeps): Parts {
  const { db, log, feed, publisher, endings, config } = deps;
  const registry = createRegistry();
  const works = createWorks({ ...deps, ttlMs: config.ttlMs });
  const wheel = new DueWheel({
    clock: deps.clock,
    ask: () =>
      deps.clock.read(
        () => clock.nowMs(db),
        (ms) => ms,
      ),
    log,
  });
  const presence = startPresenceWriter({
    ...{ db, log, works },
    onBatch: deps.telemetry.batch("beats"),
    onStale(stale) {
      const session = registry.of(stale.deviceId);
      if (session?.sessionId !== stale.sessionId) return;
      if (stale.because === "gone") session.part("revoked");
      else if (stale.because === "ended") session.part("unseated");
      else session.part("replaced");
    },
    ttlMs: config.ttlMs,
    heartbeatIntervalMs: config.heartbeatIntervalMs,
    onBroken: (broken) =>
      failTurnsOfSessions(db, broken, { log, onEnded: (ended) => publisher.turnsEnded(ended) }),
    onEnded({ orgId, deviceId, epoch }) {
      feed.transient(orgId, { kind: "device.disconnected", deviceId, epoch });
    },
  });
  return { registry, works, wheel, timers: new TimerWheel(), presence, report: reportsOf(endings) };
}

/**
 * With more sessions on a replica the heartbeat interval is multiplied by 1.5; two heartbeats still
 * fit into the TTL.
 */
const largeFleetSessions = 5_000;

/** The services that a session uses. */
export function servicesOf(
  deps: HubDeps,
  { registry, works, wheel, timers, presence, report }: Parts,
): SessionServices<Session> {
  const { db, log, feed, telemetry, publisher, dispatcher, config } = deps;
  const { ttlMs, heartbeatIntervalMs } = config;
  const ofLargeFleet = { ...config, heartbeatIntervalMs: Math.min(heartbeatIntervalMs * 1.5, ttlMs / 2) };
  const open = createOpenings({ ...deps, ttlMs, waitingMax: config.streamsMax });
  return {
    ...{ replicaId: deps.replicaId, cell: deps.cell, clock: deps.clock },
    ...{ log, wheel, telemetry, works, report },
    after: timers.after.bind(timers),
    get timers() {
      return registry.sessionsCount < largeFleetSessions ? config : ofLargeFleet;
    },
    incarnation: deps.incarnation,
    daemonVersion: () => deps.offers.version(),
    ...restoring(db, log),
    async open(session, hello) {
      await deps.offers.refresh();
      return open(session, hello);
    },
    opened: (session, opening) => opened(deps, registry, session, opening),
    beat: (session, listed) => presence.beat(session, listed),
    output: (chunk) => feed.output(chunk),
    ask: (asked) => ask(db, asked, publisher),
    closeQuestion: (which, state) => closeByDevice(db, which, state, publisher),
    runMoved: feed.attemptMoved,
    dispatcher,
    logArrived: (excerpt) => deps.onLog(excerpt),
    closed(session, { cause, isBroken, pushed }) {
      const { orgId, deviceId, epoch } = session;
      registry.remove(session);
      telemetry.streamEnded(cause);
      log.info({ orgId, deviceId, epoch, cause }, "a device session ended");
      if (epoch > 0) presence.end(session, isBroken ? { pushed } : undefined);
    },
  };
}

function restoring(db: Db, log: Logger): Pick<SessionServices<Session>, "restore" | "restoreTurn"> {
  return {
    async restore(forgotten) {
      const runId = await transaction(db, (tx) => restorations.restore(tx, forgotten));
      const { orgId, deviceId, runId: workId } = forgotten;
      log.warn(
        { orgId, deviceId, workId, isKnown: runId !== undefined },
        "a device offers a result again that was acknowledged before",
      );
      return runId;
    },
    async restoreTurn(forgotten) {
      const isKnown = await transaction(db, (tx) => turnRestorations.restoreTurn(tx, forgotten));
      const { orgId, deviceId, turnId } = forgotten;
      log.warn(
        { orgId, deviceId, turnId, isKnown },
        "a worker offers a reply again that was acknowledged before",
      );
    },
  };
}

/**
 * Handles an opened session: announces the settlements of its opening, and registers it as the
 * device's session.
 */
function opened({ publisher, feed }: HubDeps, registry: Registry, session: Session, opening: Opening): void {
  const { orgId, deviceId, epoch, sessionId } = session;
  if (opening.replacedReplicaId) {
    publisher.replaced({ orgId, deviceId, epoch, sessionId, replicaId: opening.replacedReplicaId });
  }
  announceEnds(publisher, opening);
  if (session.state === "closed") return;
  // From here on notifications find the session; work that was announced before is claimed now.
  if (!registry.seat(session)) {
    session.part("replaced");
    return;
  }
  feed.transient(orgId, { kind: "device.connected", deviceId, epoch });
  publisher.deviceOpened(orgId);
  session.assignments.wake();
}
