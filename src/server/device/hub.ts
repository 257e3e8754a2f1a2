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
import { type Db, transaction } from "../../store/database.ts";
import * as devices from "../../store/devices.ts";
import * as presence from "../../store/presence.ts";
import type { AttemptName, FailurePolicy, Settlement } from "../../store/settlements.ts";
import * as tokens from "../../store/tokens.ts";
import type { BusMessage } from "../bus.ts";
import type { Feed } from "../feed.ts";
import type { Principal } from "../guard.ts";
import { requireAllowed } from "./allowed.ts";
import type { Link } from "./link.ts";
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
  onStreamEnd?: (cause: string) => void;
};

const acceptancesPerBatchMax = 1_000;
const settlementsPerBatchMax = 500;
const closesPerBatchMax = 2_000;
const waitingMax = 50_000;
const cancelsPerSweepMax = 10_000;
/** Heartbeats of all sessions are written together this often. */
const beatsEveryMs = 1_000;
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
  });

  const closes = createBatcher<presence.SessionName, void>({
    async run(items) {
      await presence.close(db, items);
      return items.map(() => undefined);
    },
    itemsMax: closesPerBatchMax,
    queueMax: waitingMax,
    overflow,
  });

  const beats = startBeats({
    db,
    log,
    onStale: (stale) =>
      sessions.get(stale.deviceId)?.epoch === stale.epoch && sessions.get(stale.deviceId)?.replaced(),
  });

  const services: SessionServices = {
    replicaId,
    timers: deps.config,
    log,
    open: (session, hello) => open(session, hello),
    opened(session, opening) {
      // From here on doorbells find it; what rang before is claimed now.
      const before = sessions.get(session.deviceId);
      sessions.set(session.deviceId, session);
      if (before && before !== session) before.replaced();
      const { orgId, deviceId, epoch } = session;
      if (opening.replacedReplicaId) {
        deps.doorbell().replaced({ orgId, deviceId, epoch, replicaId: opening.replacedReplicaId });
      }
      deps.doorbell().settled(opening.settled);
      deps.dispatcher().wake(session);
    },
    accept: (acceptance) => acceptances.add(acceptance),
    report: (report) => deps.completer().report(report),
    settle: (settlement) => settlements.add(settlement),
    beat: (session, attempts) => beats.add(session, attempts),
    output: (chunk) => feed.output(chunk),
    runStarted: (run) => feed.runChanged({ ...run, isEnded: false }),
    wake: (session) => deps.dispatcher().wake(session),
    closed(session, cause) {
      streams.delete(session);
      if (sessions.get(session.deviceId) === session) sessions.delete(session.deviceId);
      deps.onStreamEnd?.(cause);
      log.info(
        { orgId: session.orgId, deviceId: session.deviceId, epoch: session.epoch, cause },
        "a device session ended",
      );
      if (session.epoch > 0) {
        const { orgId, deviceId, epoch } = session;
        closes.add({ orgId, deviceId, epoch }).catch((error: unknown) => {
          // Its beats stop all the same, and the reapers see that.
          log.warn({ err: error, deviceId }, "the end of a session was not recorded");
        });
      }
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
      openSession(tx, { orgId, deviceId, replicaId, held: hello.held, policy }),
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
      await beats.close();
      await Promise.all([acceptances.idle(), settlements.idle(), closes.idle()]);
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

/** Collects heartbeats and writes them once a second: one statement for the sessions, one for their attempts. */
function startBeats(options: { db: Db; log: Logger; onStale: (session: presence.SessionName) => void }) {
  const { db, log } = options;
  let beaten = new Map<string, presence.SessionName>();
  let listed = new Map<string, AttemptName>();
  let writing: Promise<void> | undefined;

  async function write(): Promise<void> {
    const sessions = beaten;
    const attemptsListed = listed;
    beaten = new Map();
    listed = new Map();
    try {
      const stale = await presence.beat(db, [...sessions.values()]);
      await attempts.beat(db, [...attemptsListed.values()]);
      for (const session of stale) options.onStale(session);
    } catch (error) {
      // They count as of the next write: a database that was away makes nobody look dead for longer than that.
      for (const [key, session] of sessions) if (!beaten.has(key)) beaten.set(key, session);
      for (const [key, attempt] of attemptsListed) if (!listed.has(key)) listed.set(key, attempt);
      log.warn({ err: error, sessions: sessions.size }, "heartbeats were not written; will try again");
    }
  }

  const timer = setInterval(() => {
    if (beaten.size === 0) return;
    writing ??= write().finally(() => {
      writing = undefined;
    });
  }, beatsEveryMs);

  return {
    add(session: presence.SessionName, attemptsBeating: readonly AttemptName[]) {
      const { orgId, deviceId, epoch } = session;
      beaten.set(deviceId, { orgId, deviceId, epoch });
      for (const attempt of attemptsBeating) listed.set(attempt.attemptToken, attempt);
    },
    async close() {
      clearInterval(timer);
      await writing;
      if (beaten.size > 0) await write();
    },
  };
}
