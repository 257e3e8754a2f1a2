import { type JsonObject, toJson } from "@bufbuild/protobuf";
import { ExecutorInfoSchema, WorkspaceInfoSchema } from "#gen/pinion/v1/activity_pb.js";
import { type Completion, DrainReason, type Hello, Platform } from "#gen/pinion/v1/device_pb.js";
import { createBatcher } from "../../batcher.ts";
import type { ReplicaConfig } from "../../config.ts";
import type { DatabaseClock } from "../../database-clock.ts";
import { Refusal, refuse } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Completer, Report, ReportVerdict } from "../../scheduler/completer.ts";
import type { Dispatcher } from "../../scheduler/dispatcher.ts";
import type { Doorbell } from "../../scheduler/doorbell.ts";
import { ask, closeByDevice, type QuestionBell } from "../../scheduler/questions.ts";
import { settleWithEvents } from "../../scheduler/settle.ts";
import type { TurnBell } from "../../scheduler/turn-bell.ts";
import type { TurnEndings } from "../../scheduler/turn-endings.ts";
import { failTurnsOfSessions } from "../../scheduler/turn-sweep.ts";
import * as devices from "../../store/people/devices.ts";
import * as workers from "../../store/people/workers.ts";
import * as clock from "../../store/pg/clock.ts";
import { type Db, mayBeOfOneRow, transaction } from "../../store/pg/database.ts";
import type { Incarnation } from "../../store/pg/incarnation.ts";
import { storableText } from "../../store/pg/storable.ts";
import * as attempts from "../../store/work/attempts.ts";
import * as events from "../../store/work/events.ts";
import type { SessionName } from "../../store/work/presence.ts";
import * as questions from "../../store/work/questions.ts";
import * as restorations from "../../store/work/restorations.ts";
import type { AttemptName, AttemptSettlement, FailurePolicy } from "../../store/work/settlements.ts";
import * as turnAttempts from "../../store/work/turn-attempts.ts";
import type { Principal } from "../access/guard.ts";
import type { Streams } from "../access/streams.ts";
import type { BusMessage } from "../cluster/bus.ts";
import type { Feed } from "../cluster/feed.ts";
import type { Telemetry } from "../telemetry.ts";
import { requireAllowed } from "./allowed.ts";
import { createBudget, createLimit } from "./bounds.ts";
import { createDueWheel } from "./due-wheel.ts";
import type { Link } from "./link.ts";
import { invalidEndOf } from "./messages.ts";
import { startPresenceWriter } from "./presence-writer.ts";
import { answerMessage } from "./questions.ts";
import { type Opening, openSession } from "./reconcile.ts";
import { type Acceptance, type AcceptResult, Session, type SessionServices } from "./session.ts";
import { createTokenStreams } from "./token-streams.ts";
import { createTurnWork } from "./turn-work.ts";

/** The sessions of this replica, by device, and what they share: one batcher for each kind of write. */
export type Hub = {
  /** Begins a session on a link. Refuses with `resource_exhausted` when the replica is full or stops. */
  begin(principal: Principal, link: Link): Session;
  /** Stores how an attempt ended, of a run or of a turn, whose device or worker says so outside of its stream. */
  report(report: Report): Promise<ReportVerdict>;
  /** Ends the attempt of a completion that can never be stored, if it is out at that device. */
  turnDown(attempt: AttemptName, completion: Completion, why: string): Promise<void>;
  /** Hands a message to the device's session; false if the device has none here. */
  receive(message: BusMessage): boolean;
  /** The session of a device, if it is here. */
  seatOf(device: { orgId: string; deviceId: string | null }): Session | undefined;
  /** Makes good what lost notifications missed: looks for settled attempts, wanted ends, and work, for all sessions. */
  sweep(): Promise<void>;
  /** Calls back when the moment has come, by the database's clock. */
  at(moment: Date, callback: () => void): void;
  stats(): { sessions: number; attempts: number };
  /** Asks all devices to connect again, spread over some seconds: the database is another one now. */
  moveAll(message: string): void;
  /** Takes no new sessions, drains the ones there are, and waits until they are gone or the time is up. */
  drain(ms: number): Promise<void>;
  /** Writes what waits. */
  close(): Promise<void>;
};

/** What the hub rings when something happened; made after it. */
export type HubDeps = {
  db: Db;
  /** Where sessions stand with their tokens, and are ended from. */
  streams: Streams;
  log: Logger;
  replicaId: string;
  clock: DatabaseClock;
  config: ReplicaConfig["session"];
  policy: FailurePolicy;
  feed: Feed;
  telemetry: Telemetry;
  /** The database that is stored into, as far as it is known. */
  incarnation: () => Incarnation | undefined;
  completer: () => Completer;
  dispatcher: () => Dispatcher;
  turnEndings: () => TurnEndings;
  doorbell: () => Doorbell &
    TurnBell &
    QuestionBell & {
      replaced(session: SessionName & { replicaId: string }): void;
      deviceOpened(orgId: string): void;
    };
};

/** After a moment, by the estimated clock, it has come by the database's. */
const afterDueMs = 2;
const acceptancesPerBatchMax = 1_000;
/** Nobody waits for the row of an accept: the device has begun. What ends as soon is written as ended, and nothing else. */
const acceptancesGatherMs = 20;
const settlementsPerBatchMax = 500;
/**
 * Outputs that wait to be stored, in characters. A completion beyond it is left unanswered: its device keeps it and sends
 * it again.
 */
const completionBytesWaitingMax = 128 * 1024 * 1024;
const waitingMax = 50_000;
const cancelsPerSweepMax = 10_000;
const sessionsPerSweepPart = 4_000;
/** Sessions opened at once: a fleet that comes back must not take all connections from the work of those that are here. */
const opensMax = 4;
/** Above so many sessions of a replica the heartbeat interval is multiplied by 1.5; two beats still fit into the TTL. */
const largeFleetSessions = 5_000;
/** An answer is said again by each sweep for so long: its device ignores one that it has. */
const answersAgainMs = 45_000;
/** A claim whose answer was lost is this old when the sweep looks. */
const claimAnswerMs = 5_000;
const overflow = () => new Refusal("unavailable", "too much waits to be written", { retryAfterMs: 1_000 });

export function createHub(deps: HubDeps): Hub {
  const { db, log, replicaId, policy, feed, telemetry } = deps;
  const sessions = new Map<string, Session>();
  /** Those of fleet workers, by org. */
  const fleets = new Map<string, Set<Session>>();
  /** Streams that have not said hello, too; each with how to take it off the list of those that a token holds open. */
  const streams = new Map<Session, () => void>();
  const tokenStreams = createTokenStreams();
  let isDraining = false;
  let idle: (() => void) | undefined;

  const acceptances = createBatcher<Acceptance, AcceptResult>({
    async run(items) {
      const open = items.filter((item) => !item.isMoot());
      const results = new Map<Acceptance, AcceptResult>();
      const accepted = await attempts.accept(db, open);
      open.forEach((item, index) => {
        results.set(item, accepted[index]!);
      });
      return items.map((item) => results.get(item) ?? "moot");
    },
    itemsMax: acceptancesPerBatchMax,
    gatherMs: acceptancesGatherMs,
    queueMax: waitingMax,
    overflow,
    mayIsolate: mayBeOfOneRow,
    onBatch: telemetry.batch("acceptances"),
  });

  const settlements = createBatcher<AttemptSettlement, boolean>({
    async run(items) {
      // An attempt may be given back twice at once: by a session's deadline, and by the sweep that does not know of it.
      const distinct = new Map(
        items.map((item) => [
          `${item.runId} ${item.attemptToken} ${item.session?.epoch} ${item.session?.sessionId}`,
          item,
        ]),
      );
      const settled = await transaction(db, (tx) => settleWithEvents(tx, [...distinct.values()], policy));
      deps.doorbell().settled(settled);
      const tokens = new Set(settled.map((run) => run.attemptToken));
      return items.map((item) => tokens.has(item.attemptToken));
    },
    itemsMax: settlementsPerBatchMax,
    queueMax: waitingMax,
    overflow,
    mayIsolate: mayBeOfOneRow,
    onBatch: telemetry.batch("settlements"),
  });

  const presenceWriter = startPresenceWriter({
    db,
    log,
    onBatch: telemetry.batch("beats"),
    onStale(stale) {
      const session = sessions.get(stale.deviceId);
      if (session?.sessionId !== stale.sessionId) return;
      if (stale.because === "gone") session.revoked();
      else if (stale.because === "ended") session.unseated();
      else session.replaced();
    },
    ttlMs: deps.config.ttlMs,
    heartbeatIntervalMs: deps.config.heartbeatIntervalMs,
    onBroken: (broken) =>
      failTurnsOfSessions(db, broken, { log, onEnded: (ended) => deps.doorbell().turnsEnded(ended) }),
    onEnded({ orgId, deviceId, epoch }) {
      feed.transient(orgId, { kind: "device.disconnected", deviceId, epoch });
    },
  });
  const wheel = createDueWheel({
    clock: deps.clock,
    ask: () =>
      deps.clock.read(
        () => clock.nowMs(db),
        (ms) => ms,
      ),
    log,
  });
  const turnWork = createTurnWork({ db, endings: deps.turnEndings });
  const opens = createLimit(opensMax);
  const budget = createBudget(completionBytesWaitingMax);

  const services: SessionServices = {
    replicaId,
    get timers() {
      const { heartbeatIntervalMs, ttlMs } = deps.config;
      if (sessions.size < largeFleetSessions) return deps.config;
      return { ...deps.config, heartbeatIntervalMs: Math.min(heartbeatIntervalMs * 1.5, ttlMs / 2) };
    },
    log,
    clock: deps.clock,
    wheel,
    telemetry,
    incarnation: deps.incarnation,
    async restore(forgotten) {
      const isKnown = await transaction(db, (tx) => restorations.restore(tx, forgotten));
      const { orgId, deviceId, runId } = forgotten;
      log.warn(
        { orgId, deviceId, runId, isKnown },
        "a device offers a result again that was acknowledged before",
      );
    },
    open: (session, hello) => opens(() => open(session, hello)),
    opened(session, opening) {
      // From here on doorbells find it; what rang before is claimed now.
      const { orgId, deviceId, epoch, sessionId } = session;
      const before = sessions.get(deviceId);
      if (opening.replacedReplicaId) {
        deps.doorbell().replaced({ orgId, deviceId, epoch, sessionId, replicaId: opening.replacedReplicaId });
      }
      deps.doorbell().settled(opening.settled);
      deps.doorbell().turnsEnded(opening.endedTurns);
      deps.doorbell().turnsWithdrawn(opening.withdrawnTurns);
      if (session.state === "closed") return;
      // Two hellos at once may be answered in the other order.
      if (before && !session.isNewerThan(before)) return session.replaced();
      sessions.set(deviceId, session);
      if (session.isWorker) {
        const fleet = fleets.get(orgId) ?? new Set();
        fleets.set(orgId, fleet.add(session));
      }
      before?.replaced();
      feed.transient(orgId, { kind: "device.connected", deviceId, epoch });
      deps.doorbell().deviceOpened(orgId);
      deps.dispatcher().wake(session);
    },
    accept: (acceptance, kind) =>
      kind === "turn" ? turnWork.accept(acceptance) : acceptances.add(acceptance),
    report: (report, kind) =>
      budget(report.output.length + (report.nextSnapshot?.length ?? 0), async () => {
        if (kind === "turn") return turnWork.report(report);
        const verdict = await deps.completer().report(report);
        // One that this session has not heard of may be a turn.
        if (kind === undefined && verdict.verdict === "unknown") return turnWork.report(report);
        return verdict;
      }),
    settle: (settlement, kind) =>
      kind === "turn" ? turnWork.settle(settlement) : settlements.add(settlement),
    beat: (session, attempts) => presenceWriter.beat(session, attempts),
    output: (chunk) => feed.output(chunk),
    ask: (asked) => ask(db, asked, deps.doorbell()),
    closeQuestion: (which, state) => closeByDevice(db, which, state, deps.doorbell()),
    runMoved({ orgId, deviceId, epoch }, kind, { kind: what, runId, watcherId, attempt }) {
      feed.runChanged({ orgId, runId, isEnded: false });
      if (what === "run") feed.transient(orgId, { kind, deviceId, epoch, runId, watcherId, attempt });
    },
    wake: (session) => deps.dispatcher().wake(session),
    closed(session, { cause, isBroken, pushed }) {
      streams.get(session)?.();
      streams.delete(session);
      telemetry.streamEnded(cause);
      if (sessions.get(session.deviceId) === session) sessions.delete(session.deviceId);
      const fleet = fleets.get(session.orgId);
      if (fleet?.delete(session) && fleet.size === 0) fleets.delete(session.orgId);
      log.info(
        { orgId: session.orgId, deviceId: session.deviceId, epoch: session.epoch, cause },
        "a device session ended",
      );
      if (session.epoch > 0) presenceWriter.end(session, isBroken ? { pushed } : undefined);
      if (streams.size === 0) idle?.();
    },
  };

  async function open(session: Session, hello: Hello): Promise<Opening> {
    const opening = await (session.isWorker ? openWorker : openDevice)(session, hello);
    const { orgId } = session;
    const { deviceId, epoch } = opening;
    log.info({ orgId, deviceId, epoch, held: hello.held.length }, "a device session began");
    return opening;
  }

  async function openDevice(session: Session, hello: Hello): Promise<Opening> {
    const { orgId, deviceId } = session;
    const device = await devices.find(db, { orgId, deviceId });
    if (!device) refuse("unauthenticated", "the device was deleted; enrol it again");
    // The token says which device it is (R6); the message may only agree.
    if (hello.installId !== device.install_id) {
      refuse("permission_denied", "the token belongs to another installation; enrol this one", {
        field: "hello.install_id",
      });
    }
    if (platformOf[hello.platform] !== device.platform) {
      refuse("permission_denied", `the device was enrolled as ${device.platform}, which is set once`, {
        field: "hello.platform",
      });
    }
    requireAllowed(device.platform as devices.Platform, hello);
    if (hello.machine) {
      const { machineHash, bootHash, hostName, arch } = hello.machine;
      const machine = { machineHash, bootHash, hostName: storableText(hostName), arch: storableText(arch) };
      const other = await devices.findOtherMachine(db, device, { machine, ttlMs: deps.config.ttlMs });
      if (other) refuse("failed_precondition", duplicateWords(other.hostName, machine.hostName));
      await devices.noteMachine(db, device, machine);
    }
    await devices.updateFromHello(db, device, factsOf(hello));
    return transaction(db, (tx) =>
      openSession(tx, {
        ...{ orgId, deviceId, replicaId, policy, log },
        ...{ held: hello.held, ttlMs: deps.config.ttlMs },
      }),
    );
  }

  /** In one transaction: a worker that has a row is not deleted as away before it has its session. */
  function openWorker({ orgId, tokenId }: Session, hello: Hello): Promise<Opening> {
    const { installId, held } = hello;
    const platform = platformOf[hello.platform]!;
    const { ttlMs } = deps.config;
    return transaction(db, async (tx) => {
      const entry = await workers.enter(tx, {
        orgId,
        tokenId,
        installId,
        platform,
        ttlMs,
        ...factsOf(hello),
      });
      const { deviceId } = entry;
      const opening = await openSession(tx, { orgId, deviceId, replicaId, held, policy, ttlMs, log });
      await events.append(tx, orgId, entry.events);
      return opening;
    });
  }

  /** Takes back claims whose answer was lost, and wakes the sessions that work waits for. */
  async function sweepPart(some: readonly Session[]): Promise<void> {
    for (const claim of await attempts.listClaimed(db, some, claimAnswerMs)) {
      sessions.get(claim.deviceId)?.withdrawUnknown({ ...claim, kind: "run" });
    }
    for (const claim of await turnAttempts.listClaimed(db, some, claimAnswerMs)) {
      sessions.get(claim.deviceId)?.withdrawUnknown({ ...claim, kind: "turn" });
    }
    const [runs, turns] = [await attempts.findWaited(db, some), await turnAttempts.findWaited(db, some)];
    for (const session of some) {
      if (runs.has(session.deviceId)) expect(session, false);
      if (turns.has(session.deviceId)) expect(session, true);
    }
  }

  /** Work may wait for a session. */
  function expect(session: Session, isTurn: boolean | undefined): void {
    if (isTurn) session.mayHaveTurns = true;
    else session.mayHaveRuns = true;
    deps.dispatcher().wake(session);
  }

  return {
    begin(principal, link) {
      if (isDraining) refuse("unavailable", "the replica stops; connect to another", { retryAfterMs: 1_000 });
      if (streams.size >= deps.config.streamsMax) {
        refuse(
          "resource_exhausted",
          `the replica holds ${deps.config.streamsMax} streams already; connect to another`,
          {
            retryAfterMs: 5_000,
          },
        );
      }
      tokenStreams.requireRoom(principal);
      const session = new Session({ principal, link, services });
      const { orgId, tokenId } = principal;
      const leaves = [
        tokenStreams.add(session),
        deps.streams.add({ orgId, tokenId, end: () => session.revoked() }),
      ];
      streams.set(session, () => {
        for (const leave of leaves) leave();
      });
      return session;
    },
    report: (report) => services.report(report, undefined),
    async turnDown({ orgId, deviceId, runId, attemptToken }, completion, why) {
      const kind = await attempts.findKind(db, { orgId, deviceId, runId, attemptToken });
      const end = { orgId, runId, attemptToken, deviceId: null, ...invalidEndOf(completion, why) };
      if (kind) await services.settle(end, kind);
    },
    receive(message) {
      if (message.kind === "fleet") {
        const fleet = fleets.get(message.orgId);
        for (const session of fleet ?? []) {
          expect(session, message.isTurn);
        }
        return fleet !== undefined;
      }
      if (!("deviceId" in message)) return false;
      const session = sessions.get(message.deviceId);
      if (!session || session.orgId !== message.orgId) return false;
      switch (message.kind) {
        case "work":
          expect(session, message.isTurn);
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
        case "replaced":
          // Of the same epoch there is another one when a failover has taken it back. One that cannot be told apart by it, a
          // lower one of a newer session, is told by its next beat.
          if (session.epoch <= message.epoch && session.sessionId !== message.sessionId) session.replaced();
          break;
        case "disconnect":
          // Meant for a stream that a newer one has replaced meanwhile.
          if (session.epoch > message.epoch) break;
          if (message.reason === "revoked") session.revoked();
          else session.drain(DrainReason.OPERATOR, "an operator asked for it");
          break;
      }
      return true;
    },
    seatOf({ orgId, deviceId }) {
      const session = deviceId === null ? undefined : sessions.get(deviceId);
      return session?.orgId === orgId ? session : undefined;
    },
    async sweep() {
      if (sessions.size === 0) return;
      const out = [...sessions.values()].flatMap((session) => session.attemptsOut());
      const ofKind = (kind: "run" | "turn") => out.filter((attempt) => attempt.kind === kind);
      const gone = [
        ...(await attempts.findGone(db, ofKind("run"))),
        ...(await turnAttempts.findGone(db, ofKind("turn"))),
      ];
      for (const attempt of gone) sessions.get(attempt.deviceId)?.settled(attempt.attemptToken);
      const cancelling = [
        ...(await attempts.listCancelling(db, cancelsPerSweepMax)),
        ...(await turnAttempts.listCancelling(db, cancelsPerSweepMax)),
      ];
      for (const wanted of cancelling) sessions.get(wanted.deviceId)?.cancel(wanted);
      const all = [...sessions.values()];
      const holding = all.filter((session) => session.activeCount > 0);
      for (const row of await questions.listAnswered(db, holding, answersAgainMs)) {
        sessions.get(row.deviceId)?.answer(answerMessage(row));
      }
      // In parts, so that beats are answered in between.
      for (let at = 0; at < all.length; at += sessionsPerSweepPart) {
        await sweepPart(all.slice(at, at + sessionsPerSweepPart));
      }
    },
    at(moment, callback) {
      // Past the moment, for whoever asks the database what is due.
      wheel.at(moment.getTime() + afterDueMs, callback);
    },
    moveAll(message) {
      for (const session of streams.keys()) session.drain(DrainReason.UNSPECIFIED, message);
    },
    stats() {
      let count = 0;
      for (const session of sessions.values()) count += session.activeCount;
      return { sessions: sessions.size, attempts: count };
    },
    async drain(ms) {
      isDraining = true;
      for (const session of streams.keys()) session.drain(DrainReason.SHUTDOWN, "the replica stops");
      if (streams.size === 0) return;
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        idle = resolve;
        timer = setTimeout(resolve, ms);
      });
      clearTimeout(timer);
      for (const session of streams.keys())
        session.close("drained", new Refusal("unavailable", "the replica stops", { retryAfterMs: 1_000 }));
    },
    async close() {
      wheel.close();
      await presenceWriter.close();
      await Promise.all([acceptances.idle(), settlements.idle(), turnWork.idle()]);
    },
  };
}

/** What the second machine of one identity is told. */
function duplicateWords(connectedFrom: string, here: string): string {
  return `this device is connected from another machine (${connectedFrom || "nameless"}), and ${here || "this one"} has a copy of its identity; \`pinion device enroll --anew --join-code …\` makes this machine a device of its own`;
}

function factsOf(hello: Hello): devices.HelloFacts {
  const { appVersion, label, agentKinds, capabilities, maxConcurrency } = hello;
  return {
    configProblem: storableText(hello.configProblem),
    ...{ appVersion, label, agentKinds, capabilities, maxConcurrency },
    executors: hello.executors.map((executor) => toJson(ExecutorInfoSchema, executor) as JsonObject),
    workspaces: hello.workspaces.map((workspace) => toJson(WorkspaceInfoSchema, workspace) as JsonObject),
  };
}

/** A platform as the store names it. */
export const platformOf: Record<Platform, devices.Platform | undefined> = {
  [Platform.UNSPECIFIED]: undefined,
  [Platform.MACOS]: "macos",
  [Platform.LINUX]: "linux",
  [Platform.WINDOWS]: "windows",
  [Platform.IOS]: "ios",
  [Platform.ANDROID]: "android",
  [Platform.BROWSER]: "browser",
};
