import { type Completion, DrainReason } from "#gen/pinion/v1/device_pb.js";
import type { ReplicaConfig } from "../../config.ts";
import type { DatabaseClock } from "../../database-clock.ts";
import { Refusal, refuse } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Dispatcher } from "../../scheduler/dispatcher.ts";
import { announceEnds } from "../../scheduler/doorbell.ts";
import type { Endings, Report, ReportVerdict } from "../../scheduler/endings.ts";
import type { Publisher } from "../../scheduler/publisher.ts";
import { ask, closeByDevice } from "../../scheduler/questions.ts";
import { failTurnsOfSessions } from "../../scheduler/turn-sweep.ts";
import * as clock from "../../store/pg/clock.ts";
import { type Db, transaction } from "../../store/pg/database.ts";
import type { Incarnation } from "../../store/pg/incarnation.ts";
import type { Looks } from "../../store/pg/looks.ts";
import * as active from "../../store/work/active.ts";
import { type Leaving, refusalOf } from "../../store/work/org-moves.ts";
import * as restorations from "../../store/work/restorations.ts";
import type { AttemptName, FailurePolicy } from "../../store/work/settlements.ts";
import * as turnRestorations from "../../store/work/turn-restorations.ts";
import type { Principal } from "../access/principal.ts";
import type { Streams } from "../access/streams.ts";
import type { BusMessage } from "../cluster/bus.ts";
import type { Feed } from "../cluster/feed.ts";
import type { Offers } from "../http/offers.ts";
import type { Telemetry } from "../telemetry.ts";
import { createBudget, createLimit } from "./bounds.ts";
import type { DeviceLogs } from "./device-logs.ts";
import { createDueWheel, type DueWheel } from "./due-wheel.ts";
import { restoreForgotten } from "./forgotten.ts";
import type { Link } from "./link.ts";
import { invalidEndOf } from "./messages.ts";
import { open } from "./opening.ts";
import { type PresenceWriter, startPresenceWriter } from "./presence-writer.ts";
import type { Opening } from "./reconcile.ts";
import { createRegistry, type Registry } from "./registry.ts";
import { createRunWork } from "./run-work.ts";
import { Session } from "./session.ts";
import type { SessionServices } from "./session-services.ts";
import { sweepSessions } from "./sweep.ts";
import { createTokenStreams } from "./token-streams.ts";
import { createTurnWork } from "./turn-work.ts";
import { type AttemptKind, attemptKinds, type Works } from "./work.ts";

/**
 * The sessions of the replica, by device, and their shared services: a batcher for each kind of
 * write.
 */
export type Hub = {
  /**
   * Begins a session on a link. Refuses with `resource_exhausted` when the replica is full or
   * stops.
   */
  begin(principal: Principal, link: Link): Session;
  /**
   * Restores the run or turn that a completion brings along, after a failover; false if the
   * completion brings none.
   */
  restore(device: { orgId: string; deviceId: string }, completion: Completion): Promise<boolean>;
  /**
   * Stores the end of an attempt of a run or a turn, reported by the device or worker outside of
   * its stream.
   */
  report(report: Report): Promise<ReportVerdict>;
  /**
   * Ends the attempt of a completion that can never be stored, if the attempt is on the named
   * device.
   */
  turnDown(attempt: AttemptName, completion: Completion, why: string): Promise<void>;
  /** Hands a message to the device's session; false if the device has none here. */
  receive(message: BusMessage): boolean;
  /** The session of a device, if local. */
  seatOf(device: { orgId: string; deviceId: string | null }): Session | undefined;
  /**
   * Finds the work of lost notifications: checks settled attempts, requested cancels and waiting
   * work of all sessions.
   */
  sweep(): Promise<void>;
  /** Calls back when the moment has come, by the database's clock. */
  at(moment: Date, callback: () => void): void;
  stats(): { sessions: number; attempts: number };
  /** Asks all devices to reconnect, spread over some seconds, because the database was replaced. */
  moveAll(message: string): void;
  /**
   * Accepts no new session, drains the existing sessions, and waits until all are gone or `ms` have
   * passed.
   */
  drain(ms: number): Promise<void>;
  /** Writes all waiting items. */
  close(): Promise<void>;
};

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

/**
 * Milliseconds after a time by the estimated clock until the time has come by the database's clock.
 */
const afterDueMs = 2;
/**
 * Maximum characters of outputs that wait to be stored. A completion beyond the limit is not
 * answered: its device keeps the completion and sends it again.
 */
const completionBytesWaitingMax = 128 * 1024 * 1024;
/**
 * Maximum sessions opened at once, so that a reconnecting fleet leaves database connections to open
 * sessions.
 */
const opensMax = 4;
/**
 * With more sessions on a replica the heartbeat interval is multiplied by 1.5; two heartbeats still
 * fit into the TTL.
 */
const largeFleetSessions = 5_000;

/** The shared parts of a hub. */
type Parts = {
  registry: Registry;
  works: Works;
  wheel: DueWheel;
  presence: PresenceWriter;
  report: (report: Report, kind: AttemptKind | undefined) => Promise<ReportVerdict>;
};

export function createHub(deps: HubDeps): Hub {
  const { config } = deps;
  const tokenStreams = createTokenStreams();
  const parts = createParts(deps);
  const { registry, works, wheel } = parts;
  const services = servicesOf(deps, parts);
  const expect = (session: Session, kind: AttemptKind) => {
    session.mayHave(kind);
    deps.dispatcher.wake(session);
  };
  let isDraining = false;

  return {
    begin(principal, link) {
      if (isDraining) refuse("unavailable", "the replica stops; connect to another", { retryAfterMs: 1_000 });
      if (registry.streamsCount >= config.streamsMax) {
        const message = `the replica holds ${config.streamsMax} streams already; connect to another`;
        refuse("resource_exhausted", message, { retryAfterMs: 5_000 });
      }
      const { leaving } = principal;
      if (leaving && leaving.cell === undefined) throw refusalOf(leaving);
      tokenStreams.requireRoom(principal);
      const session = new Session({ principal, link, services });
      const { orgId, tokenId } = principal;
      const uncount = tokenStreams.add(session);
      const end = (leaving?: Leaving) => (leaving ? session.leaveCell(leaving) : session.revoked());
      const forget = deps.streams.add({ orgId, tokenId, end });
      registry.add(session, () => {
        uncount();
        forget();
      });
      // After the headers of the answer.
      if (leaving) setImmediate(() => session.leaveCell(leaving));
      return session;
    },
    restore: (device, completion) => restoreForgotten(services, device, completion),
    report: (report) => parts.report(report, undefined),
    async turnDown({ orgId, deviceId, workId, attemptToken }, completion, why) {
      const kind = await active.findKind(deps.db, { orgId, deviceId, workId, attemptToken });
      const end = { orgId, workId, attemptToken, deviceId: null, ...invalidEndOf(completion, why) };
      if (kind) await works[kind].settle(end);
    },
    receive: (message) => deliver(registry, message, expect),
    seatOf({ orgId, deviceId }) {
      const session = deviceId === null ? undefined : registry.of(deviceId);
      return session?.orgId === orgId ? session : undefined;
    },
    sweep: () => sweepSessions({ db: deps.db, looks: deps.looks, registry, works }, expect),
    // Slightly after the time, for callers that then query the database for due work.
    at: (moment, callback) => void wheel.at(moment.getTime() + afterDueMs, callback),
    moveAll(message) {
      for (const session of registry.streams()) session.drain(DrainReason.UNSPECIFIED, message);
    },
    stats() {
      const sessions = registry.sessions();
      const active = sessions.reduce((sum, session) => sum + session.activeCount, 0);
      return { sessions: sessions.length, attempts: active };
    },
    async drain(ms) {
      isDraining = true;
      for (const session of registry.streams()) session.drain(DrainReason.SHUTDOWN, "the replica stops");
      await registry.empty(ms);
      registry.closeAll("drained", new Refusal("unavailable", "the replica stops", { retryAfterMs: 1_000 }));
    },
    async close() {
      wheel.close();
      await parts.presence.close();
      await Promise.all(attemptKinds.map((kind) => works[kind].idle()));
    },
  };
}

function createParts(deps: HubDeps): Parts {
  const { db, log, feed, publisher, config } = deps;
  const registry = createRegistry();
  const works = {
    run: createRunWork({ ...deps, endings: deps.endings.run }),
    turn: createTurnWork({ db, endings: deps.endings.turn, ttlMs: config.ttlMs }),
  };
  const wheel = createDueWheel({
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
      if (stale.because === "gone") session.revoked();
      else if (stale.because === "ended") session.unseated();
      else session.replaced();
    },
    ttlMs: config.ttlMs,
    heartbeatIntervalMs: config.heartbeatIntervalMs,
    onBroken: (broken) =>
      failTurnsOfSessions(db, broken, { log, onEnded: (ended) => publisher.turnsEnded(ended) }),
    onEnded({ orgId, deviceId, epoch }) {
      feed.transient(orgId, { kind: "device.disconnected", deviceId, epoch });
    },
  });
  const budget = createBudget(completionBytesWaitingMax);
  const report: Parts["report"] = (told, kind) =>
    budget(told.output.length + (told.nextSnapshot?.length ?? 0), async () => {
      if (kind) return works[kind].report(told);
      // The kind of an attempt unknown to the session is unknown, too.
      for (const kind of attemptKinds) {
        const verdict = await works[kind].report(told);
        if (verdict.verdict !== "unknown") return verdict;
      }
      return { verdict: "unknown", windowId: null };
    });
  return { registry, works, wheel, presence, report };
}

/** The services that a session uses. */
function servicesOf(
  deps: HubDeps,
  { registry, works, wheel, presence, report }: Parts,
): SessionServices<Session> {
  const { db, log, feed, telemetry, publisher, dispatcher, config } = deps;
  const { ttlMs, heartbeatIntervalMs } = config;
  const opens = createLimit(opensMax);
  return {
    ...{
      replicaId: deps.replicaId,
      cell: deps.cell,
      log,
      clock: deps.clock,
      wheel,
      telemetry,
      works,
      report,
    },
    get timers() {
      if (registry.sessionsCount < largeFleetSessions) return config;
      return { ...config, heartbeatIntervalMs: Math.min(heartbeatIntervalMs * 1.5, ttlMs / 2) };
    },
    incarnation: deps.incarnation,
    daemonVersion: () => deps.offers.version(),
    async restore(forgotten) {
      const isKnown = await transaction(db, (tx) => restorations.restore(tx, forgotten));
      const { orgId, deviceId, runId: workId } = forgotten;
      log.warn(
        { orgId, deviceId, workId, isKnown },
        "a device offers a result again that was acknowledged before",
      );
    },
    async restoreTurn(forgotten) {
      const isKnown = await transaction(db, (tx) => turnRestorations.restoreTurn(tx, forgotten));
      const { orgId, deviceId, turnId } = forgotten;
      log.warn(
        { orgId, deviceId, turnId, isKnown },
        "a worker offers a reply again that was acknowledged before",
      );
    },
    open: (session, hello) =>
      opens(async () => {
        // A device that has given up dials again: its abandoned hellos cost the other devices nothing.
        if (session.state === "closed") throw new Refusal("unavailable", "the stream ended while it waited");
        await deps.offers.refresh();
        return open({ ...deps, ttlMs }, session, hello);
      }),
    opened: (session, opening) => opened(deps, registry, session, opening),
    beat: (session, listed) => presence.beat(session, listed),
    output: (chunk) => feed.output(chunk),
    ask: (asked) => ask(db, asked, publisher),
    closeQuestion: (which, state) => closeByDevice(db, which, state, publisher),
    runMoved({ orgId, deviceId, epoch }, kind, { kind: what, workId, watcherId, attempt }) {
      feed.workChanged({ orgId, workId, isEnded: false });
      if (what === "run") feed.transient(orgId, { kind, deviceId, epoch, workId, watcherId, attempt });
    },
    wake: (session) => dispatcher.wake(session),
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

/**
 * Handles an opened session: announces the settlements of its opening, and registers it as the
 * device's session.
 */
function opened(
  { publisher, feed, dispatcher }: HubDeps,
  registry: Registry,
  session: Session,
  opening: Opening,
): void {
  const { orgId, deviceId, epoch, sessionId } = session;
  if (opening.replacedReplicaId) {
    publisher.replaced({ orgId, deviceId, epoch, sessionId, replicaId: opening.replacedReplicaId });
  }
  announceEnds(publisher, opening);
  if (session.state === "closed") return;
  // From here on notifications find the session; work that was announced before is claimed now.
  if (!registry.seat(session)) {
    session.replaced();
    return;
  }
  feed.transient(orgId, { kind: "device.connected", deviceId, epoch });
  publisher.deviceOpened(orgId);
  dispatcher.wake(session);
}

/** Hands a message to its local sessions; false for none. */
function deliver(
  registry: Registry,
  message: BusMessage,
  expect: (session: Session, kind: AttemptKind) => void,
): boolean {
  if (message.kind === "fleet") {
    const fleet = registry.fleetOf(message.orgId);
    for (const session of fleet ?? []) expect(session, message.of);
    return fleet !== undefined;
  }
  if (!("deviceId" in message)) return false;
  const session = registry.of(message.deviceId);
  if (!session || session.orgId !== message.orgId) return false;
  switch (message.kind) {
    case "work":
      expect(session, message.of);
      break;
    case "cancel":
      session.cancel(message);
      break;
    case "settled":
      session.settled(message.attemptToken);
      break;
    case "answer":
      session.answer(message);
      break;
    case "log_wanted":
      session.askForLog(message);
      break;
    case "replaced":
      // An equal epoch with another session id occurs after a failover that reset the epoch. A
      // newer session with a lower epoch cannot be recognized here; its next heartbeat reveals it.
      if (session.epoch <= message.epoch && session.sessionId !== message.sessionId) session.replaced();
      break;
    case "disconnect":
      // The message was for a stream that a newer stream has replaced.
      if (session.epoch > message.epoch) break;
      if (message.reason === "revoked") session.revoked();
      else session.drain(DrainReason.OPERATOR, "an operator asked for it");
      break;
  }
  return true;
}
