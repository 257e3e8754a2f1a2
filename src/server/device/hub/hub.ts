import { type Completion, DrainReason } from "#gen/pinion/v1/device_pb.js";
import { Refusal, refuse } from "../../../errors.ts";
import type { Report, ReportVerdict } from "../../../scheduler/endings/endings.ts";
import * as active from "../../../store/work/attempts/active.ts";
import type { AttemptName } from "../../../store/work/attempts/settlements.ts";
import { refusalOf } from "../../../store/work/service/org-moves.ts";
import type { Principal } from "../../access/principal.ts";
import type { BusMessage } from "../../cluster/bus.ts";
import type { DueWheel } from "../attempts/due-wheel.ts";
import { attemptKinds } from "../attempts/work.ts";
import { invalidEndOf } from "../messages/reports.ts";
import { restoreForgotten } from "../reconcile/forgotten.ts";
import { Session } from "../session/session.ts";
import type { SessionServices } from "../session/session-services.ts";
import type { Link } from "../stream/link.ts";
import { createTokenStreams } from "../stream/token-streams.ts";
import { createParts, type HubDeps, servicesOf } from "./hub-services.ts";
import type { Registry } from "./registry.ts";
import { sweepSessions } from "./sweep.ts";

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
  restore(device: { orgId: string; deviceId: string }, completion: Completion): Promise<string | undefined>;
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
  /** The seat of a device with a session on this replica. */
  seatOf: Registry["seatOf"];
  /**
   * Finds the work of lost notifications: checks settled attempts, requested cancels and waiting
   * work of all sessions.
   */
  sweep(): Promise<void>;
  /** Calls back when the moment has come, by the database's clock. */
  at(moment: Date, callback: () => void): void;
  /** The pace of the streams' messages. */
  readonly pace: Pick<DueWheel, "holds" | "interrupts">;
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

/**
 * Milliseconds after a time by the estimated clock until the time has come by the database's clock.
 */
const afterDueMs = 2;

export function createHub(deps: HubDeps): Hub {
  const parts = createParts(deps);
  const { registry, works, wheel } = parts;
  const services = servicesOf(deps, parts);
  const begin = createBeginning(deps, registry, services);
  let isDraining = false;

  return {
    begin(principal, link) {
      if (isDraining) refuse("unavailable", "the replica stops; connect to another", { retryAfterMs: 1_000 });
      return begin(principal, link);
    },
    restore: (device, completion) => restoreForgotten(services, device, completion),
    report: (report) => parts.report(report, undefined),
    async turnDown({ orgId, deviceId, workId, attemptToken }, completion, why) {
      const kind = await active.findKind(deps.db, { orgId, deviceId, workId, attemptToken });
      const end = { orgId, workId, attemptToken, deviceId: null, ...invalidEndOf(completion, why) };
      if (kind) await works[kind].settle(end);
    },
    receive: registry.receive,
    seatOf: registry.seatOf,
    sweep: () => sweepSessions({ db: deps.db, looks: deps.looks, registry, works }),
    // Slightly after the time, for callers that then query the database for due work.
    at: (moment, callback) => void wheel.at(moment.getTime() + afterDueMs, callback),
    pace: wheel,
    moveAll(message) {
      for (const session of registry.streams()) session.drain(DrainReason.UNSPECIFIED, message);
    },
    stats() {
      const sessions = registry.sessions();
      const active = sessions.reduce((sum, session) => sum + session.assignments.out.size, 0);
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
      parts.timers.close();
      await parts.presence.close();
      await Promise.all(attemptKinds.map((kind) => works[kind].idle()));
    },
  };
}

/** Begins sessions, within the bounds of streams. */
function createBeginning(
  { config, streams }: HubDeps,
  registry: Registry,
  services: SessionServices<Session>,
): Hub["begin"] {
  const tokenStreams = createTokenStreams();
  const release = (session: Session) => {
    tokenStreams.remove(session);
    streams.remove(session);
  };
  return (principal, link) => {
    if (registry.streamsCount >= config.streamsMax) {
      const message = `the replica holds ${config.streamsMax} streams already; connect to another`;
      refuse("resource_exhausted", message, { retryAfterMs: 5_000 });
    }
    const { leaving } = principal;
    if (leaving && leaving.cell === undefined) throw refusalOf(leaving);
    tokenStreams.requireRoom(principal);
    const session = new Session({ principal, link, services });
    tokenStreams.add(session);
    streams.add(session);
    registry.add(session, release);
    // After the headers of the answer.
    if (leaving) setImmediate(() => session.end(leaving));
    return session;
  };
}
