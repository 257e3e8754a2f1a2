import type { ReplicaConfig } from "../../../config.ts";
import type { DatabaseClock } from "../../../database-clock.ts";
import type { Logger } from "../../../log.ts";
import type { Dispatcher } from "../../../scheduler/dispatcher.ts";
import type { Endings, Report, ReportVerdict } from "../../../scheduler/endings.ts";
import type { Publisher } from "../../../scheduler/publisher.ts";
import { failTurnsOfSessions } from "../../../scheduler/turn-sweep.ts";
import * as clock from "../../../store/pg/clock.ts";
import type { Db } from "../../../store/pg/database.ts";
import type { Incarnation } from "../../../store/pg/incarnation.ts";
import type { Looks } from "../../../store/pg/looks.ts";
import type { FailurePolicy } from "../../../store/work/attempts/settlements.ts";
import { TimerWheel } from "../../../timer-wheel.ts";
import type { Streams } from "../../access/streams.ts";
import type { Feed } from "../../cluster/feed.ts";
import type { Offers } from "../../http/offers.ts";
import type { Telemetry } from "../../telemetry.ts";
import { DueWheel } from "../attempts/due-wheel.ts";
import { createRunWork } from "../attempts/run-work.ts";
import { createTurnWork } from "../attempts/turn-work.ts";
import { type AttemptKind, attemptKinds, type Works } from "../attempts/work.ts";
import { createBudget } from "./bounds.ts";
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

/**
 * Maximum characters of outputs that wait to be stored. A completion beyond the limit is not
 * answered: its device keeps the completion and sends it again.
 */
const completionBytesWaitingMax = 128 * 1024 * 1024;

/** The shared parts of a hub. */
export type Parts = {
  registry: Registry;
  works: Works;
  wheel: DueWheel;
  /** The sessions' own deadlines. */
  timers: TimerWheel;
  presence: PresenceWriter;
  report: (report: Report, kind: AttemptKind | undefined) => Promise<ReportVerdict>;
};

export function createParts(deps: HubDeps): Parts {
  const { db, log, feed, publisher, config } = deps;
  const registry = createRegistry();
  const works = {
    run: createRunWork({ ...deps, endings: deps.endings.run }),
    turn: createTurnWork({ ...deps, endings: deps.endings.turn, ttlMs: config.ttlMs }),
  };
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
  const budget = createBudget(completionBytesWaitingMax);
  const report: Parts["report"] = (told, kind) =>
    budget(told.output.length + (told.nextSnapshot?.length ?? 0), () =>
      kind ? works[kind].report(told) : reportOfAny(works, told),
    );
  return { registry, works, wheel, timers: new TimerWheel(), presence, report };
}

/** Stores a report of an attempt unknown to the session, whose kind is unknown, too. */
async function reportOfAny(works: Works, told: Report): Promise<ReportVerdict> {
  for (const kind of attemptKinds) {
    const verdict = await works[kind].report(told);
    if (verdict.verdict !== "unknown") return verdict;
  }
  return { verdict: "unknown", windowId: null };
}
