import { DrainReason, type Hello, Platform } from "#gen/pinion/v1/device_pb.js";
import { createBatcher } from "../../batcher.ts";
import type { ReplicaConfig } from "../../config.ts";
import { Refusal, refuse } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Completer } from "../../scheduler/completer.ts";
import type { Dispatcher } from "../../scheduler/dispatcher.ts";
import type { Doorbell } from "../../scheduler/doorbell.ts";
import { settleWithEvents } from "../../scheduler/settle.ts";
import * as attempts from "../../store/attempts.ts";
import { type Db, isPassing, transaction } from "../../store/database.ts";
import * as devices from "../../store/devices.ts";
import type { FailurePolicy, Settlement } from "../../store/settlements.ts";
import * as tokens from "../../store/tokens.ts";
import type { BusMessage } from "../bus.ts";
import type { Feed } from "../feed.ts";
import type { Principal } from "../guard.ts";
import { requireAllowed } from "./allowed.ts";
import { createBudget, createLimit } from "./bounds.ts";
import type { Link } from "./link.ts";
import { startPresenceWriter } from "./presence-writer.ts";
import { type Opening, openSession } from "./reconcile.ts";
import { Session, type SessionServices } from "./session.ts";

/** The sessions of this replica, by device, and what they share: one batcher for each kind of write. */
export type Hub = {
  /** Begins a session on a link. Refuses with `resource_exhausted` when the replica is full or stops. */
  begin(principal: Principal, link: Link): Session;
  /** Hands a message to the device's session; false if the device has none here. */
  receive(message: BusMessage): boolean;
  /** Ends the sessions that a token opened. */
  revoke(tokenId: string): void;
  /** Ends the sessions whose token has expired, or was revoked without this replica hearing of it. */
  endExpired(): Promise<void>;
  /** Makes good what lost notifications missed: looks for settled attempts, wanted ends, and work, for all sessions. */
  sweep(): Promise<void>;
  stats(): { sessions: number; attempts: number };
  /** Takes no new sessions, drains the ones there are, and waits until they are gone or the time is up. */
  drain(ms: number): Promise<void>;
  /** Writes what waits. */
  close(): Promise<void>;
};

/** What the hub rings when something happened; made after it. */
export type HubDeps = {
  db: Db;
  log: Logger;
  replicaId: string;
  config: ReplicaConfig["session"];
  policy: FailurePolicy;
  feed: Feed;
  completer: () => Completer;
  dispatcher: () => Dispatcher;
  doorbell: () => Doorbell & {
    replaced(session: { orgId: string; deviceId: string; epoch: number; replicaId: string }): void;
  };
};

const acceptancesPerBatchMax = 1_000;
const settlementsPerBatchMax = 500;
/**
 * Outputs that wait to be stored, in characters. A completion beyond it is left unanswered: its device keeps it and sends
 * it again.
 */
const completionBytesWaitingMax = 128 * 1024 * 1024;
const waitingMax = 50_000;
const cancelsPerSweepMax = 10_000;
/** Sessions opened at once: a fleet that comes back must not take all connections from the work of those that are here. */
const opensMax = 4;
/** Beyond so many sessions heartbeats are asked for half as often again; the TTL still holds two of them. */
const largeFleetSessions = 5_000;
/** A claim whose answer was lost is this old when the sweep looks. */
const claimAnswerMs = 5_000;
const overflow = () => new Refusal("unavailable", "too much waits to be written", { retryAfterMs: 1_000 });

export function createHub(deps: HubDeps): Hub {
  const { db, log, replicaId, policy, feed } = deps;
  const sessions = new Map<string, Session>();
  /** Streams that have not said hello, too. */
  const streams = new Set<Session>();
  let isDraining = false;
  let idle: (() => void) | undefined;

  const acceptances = createBatcher({
    run: (items: attempts.Acceptance[]) => transaction(db, (tx) => attempts.accept(tx, items)),
    itemsMax: acceptancesPerBatchMax,
    queueMax: waitingMax,
    overflow,
    mayIsolate: (error) => !isPassing(error),
  });

  const settlements = createBatcher<Settlement, void>({
    async run(items) {
      const settled = await transaction(db, (tx) => settleWithEvents(tx, items, policy));
      deps.doorbell().settled(settled);
      return items.map(() => undefined);
    },
    itemsMax: settlementsPerBatchMax,
    queueMax: waitingMax,
    overflow,
    mayIsolate: (error) => !isPassing(error),
  });

  const presenceWriter = startPresenceWriter({
    db,
    log,
    onStale(stale) {
      const session = sessions.get(stale.deviceId);
      if (session?.epoch === stale.epoch) session.replaced();
    },
    onEnded({ orgId, deviceId, epoch }) {
      feed.transient(orgId, { kind: "device.disconnected", deviceId, epoch });
    },
  });
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
    open: (session, hello) => opens(() => open(session, hello)),
    opened(session, opening) {
      // From here on doorbells find it; what rang before is claimed now.
      const { orgId, deviceId, epoch } = session;
      const before = sessions.get(deviceId);
      if (opening.replacedReplicaId) {
        deps.doorbell().replaced({ orgId, deviceId, epoch, replicaId: opening.replacedReplicaId });
      }
      deps.doorbell().settled(opening.settled);
      if (session.state === "closed") return;
      // Two hellos at once may be answered in the other order.
      if (before && before.epoch > epoch) return session.replaced();
      sessions.set(deviceId, session);
      before?.replaced();
      feed.transient(orgId, { kind: "device.connected", deviceId, epoch });
      deps.dispatcher().wake(session);
    },
    accept: (acceptance) => acceptances.add(acceptance),
    report: (report) => budget(report.output.length, () => deps.completer().report(report)),
    settle: (settlement) => settlements.add(settlement),
    beat: (session, attempts) => presenceWriter.beat(session, attempts),
    output: (chunk) => feed.output(chunk),
    runMoved({ orgId, deviceId, epoch }, kind, { runId, watcherId, attempt }) {
      feed.runChanged({ orgId, runId, isEnded: false });
      feed.transient(orgId, { kind, deviceId, epoch, runId, watcherId, attempt });
    },
    wake: (session) => deps.dispatcher().wake(session),
    closed(session, cause) {
      streams.delete(session);
      if (sessions.get(session.deviceId) === session) sessions.delete(session.deviceId);
      log.info(
        { orgId: session.orgId, deviceId: session.deviceId, epoch: session.epoch, cause },
        "a device session ended",
      );
      if (session.epoch > 0) presenceWriter.end(session);
      if (streams.size === 0) idle?.();
    },
  };

  async function open(session: Session, hello: Hello): Promise<Opening> {
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
    await devices.updateFromHello(db, {
      orgId,
      deviceId,
      appVersion: hello.appVersion,
      label: hello.label,
      agentKinds: hello.agentKinds,
      capabilities: hello.capabilities,
      maxConcurrency: hello.maxConcurrency,
    });
    const opening = await transaction(db, (tx) =>
      openSession(tx, { orgId, deviceId, replicaId, held: hello.held, policy, log }),
    );
    log.info({ orgId, deviceId, epoch: opening.epoch, held: hello.held.length }, "a device session began");
    return opening;
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
      const session = new Session({ principal, link, services });
      streams.add(session);
      return session;
    },
    receive(message) {
      if (!("deviceId" in message)) return false;
      const session = sessions.get(message.deviceId);
      if (!session || session.orgId !== message.orgId) return false;
      switch (message.kind) {
        case "work":
          deps.dispatcher().wake(session);
          break;
        case "cancel":
          session.cancel(message);
          break;
        case "settled":
          session.settled(message.attemptToken);
          break;
        case "replaced":
          if (session.epoch < message.epoch) session.replaced();
          break;
        case "disconnect":
          if (message.reason === "revoked") session.revoked();
          else session.drain(DrainReason.OPERATOR, "an operator asked for it");
          break;
      }
      return true;
    },
    revoke(tokenId) {
      for (const session of streams) if (session.tokenId === tokenId) session.revoked();
    },
    async endExpired() {
      const ended = await tokens.findEnded(db, [...streams]);
      for (const session of streams) if (ended.has(session.tokenId)) session.revoked();
    },
    async sweep() {
      if (sessions.size === 0) return;
      const out = [...sessions.values()].flatMap((session) => session.attemptsOut());
      for (const gone of await attempts.findGone(db, out))
        sessions.get(gone.deviceId)?.settled(gone.attemptToken);
      for (const wanted of await attempts.listCancelling(db, cancelsPerSweepMax)) {
        sessions.get(wanted.deviceId)?.cancel(wanted);
      }
      const names = [...sessions.values()].map(({ orgId, deviceId, epoch }) => ({ orgId, deviceId, epoch }));
      for (const claim of await attempts.listClaimed(db, names, claimAnswerMs)) {
        sessions.get(claim.deviceId)?.withdrawUnknown(claim);
      }
      for (const session of sessions.values()) deps.dispatcher().wake(session);
    },
    stats() {
      let count = 0;
      for (const session of sessions.values()) count += session.activeCount;
      return { sessions: sessions.size, attempts: count };
    },
    async drain(ms) {
      isDraining = true;
      for (const session of streams) session.drain(DrainReason.SHUTDOWN, "the replica stops");
      if (streams.size === 0) return;
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        idle = resolve;
        timer = setTimeout(resolve, ms);
      });
      clearTimeout(timer);
      for (const session of streams)
        session.close("drained", new Refusal("unavailable", "the replica stops", { retryAfterMs: 1_000 }));
    },
    async close() {
      await presenceWriter.close();
      await Promise.all([acceptances.idle(), settlements.idle()]);
    },
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
