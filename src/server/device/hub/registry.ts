import { DrainReason } from "#gen/pinion/v1/device_pb.js";
import type { Refusal } from "../../../errors.ts";
import type { Seat } from "../../../scheduler/seat.ts";
import type { BusMessage } from "../../cluster/bus.ts";
import type { AttemptKind } from "../attempts/work.ts";
import type { Session } from "../session/session.ts";

/**
 * The streams of the replica, and the serving sessions among them: by device, and fleet workers by
 * org. A stream is listed from its start to its end, also before its hello; a session is registered
 * for its device after opening. Messages of any replica find their sessions here.
 */
export type Registry = {
  /** Streams of any state. */
  readonly streamsCount: number;
  readonly sessionsCount: number;
  /** Counts a stream until its end, and then calls `release`, a function that streams share. */
  add(session: Session, release: (session: Session) => void): void;
  /**
   * Registers a session for its device; an older session of the device is replaced. False: the
   * registered session is newer.
   */
  seat(session: Session): boolean;
  /** Removes a stream and its session. */
  remove(session: Session): void;
  of(deviceId: string): Session | undefined;
  /** The seat of a device of the org: its session, as the dispatcher knows the session. */
  seatOf(device: { orgId: string; deviceId: string | null }): Seat | undefined;
  /** Hands a message to the sessions that it concerns; false if there are none here. */
  receive(message: BusMessage): boolean;
  /** Wakes a session for work of a kind. */
  expect(session: Session, kind: AttemptKind): void;
  streams(): IterableIterator<Session>;
  sessions(): Session[];
  /** Resolves once no stream is left, and after `ms` at the latest. */
  empty(ms: number): Promise<void>;
  /** Ends the remaining streams. */
  closeAll(cause: string, refusal: Refusal): void;
};

export function createRegistry(): Registry {
  const streams = new Map<Session, (session: Session) => void>();
  const sessions = new Map<string, Session>();
  const fleets = new Map<string, Set<Session>>();
  let onEmpty: (() => void) | undefined;

  return {
    get streamsCount() {
      return streams.size;
    },
    get sessionsCount() {
      return sessions.size;
    },
    add: (session, release) => void streams.set(session, release),
    seat(session) {
      const { deviceId, orgId } = session;
      const before = sessions.get(deviceId);
      // Two hellos at once may be answered in the other order.
      if (before && !session.isNewerThan(before)) return false;
      sessions.set(deviceId, session);
      if (session.isWorker) fleets.set(orgId, (fleets.get(orgId) ?? new Set()).add(session));
      before?.part("replaced");
      return true;
    },
    remove(session) {
      const { deviceId, orgId } = session;
      streams.get(session)?.(session);
      streams.delete(session);
      if (sessions.get(deviceId) === session) sessions.delete(deviceId);
      const fleet = fleets.get(orgId);
      if (fleet?.delete(session) && fleet.size === 0) fleets.delete(orgId);
      if (streams.size === 0) onEmpty?.();
    },
    of: (deviceId) => sessions.get(deviceId),
    ...delivery({ sessions, fleets }),
    streams: () => streams.keys(),
    sessions: () => [...sessions.values()],
    async empty(ms) {
      if (streams.size === 0) return;
      let timer: NodeJS.Timeout | undefined;
      await new Promise<void>((resolve) => {
        onEmpty = resolve;
        timer = setTimeout(resolve, ms);
      });
      clearTimeout(timer);
    },
    closeAll(cause, refusal) {
      for (const session of streams.keys()) session.close(cause, refusal);
    },
  };
}

/** Finds the sessions of messages. */
function delivery({
  sessions,
  fleets,
}: {
  sessions: ReadonlyMap<string, Session>;
  fleets: ReadonlyMap<string, ReadonlySet<Session>>;
}): Pick<Registry, "seatOf" | "expect" | "receive"> {
  const find = ({ orgId, deviceId }: { orgId: string; deviceId: string | null }) => {
    const session = deviceId === null ? undefined : sessions.get(deviceId);
    return session?.orgId === orgId ? session : undefined;
  };
  const expect: Registry["expect"] = ({ assignments }, kind) => {
    assignments.mayHave[kind] = true;
    assignments.wake();
  };
  return {
    seatOf: (device) => find(device)?.assignments,
    expect,
    receive(message) {
      if (message.kind === "fleet") {
        const fleet = fleets.get(message.orgId);
        for (const session of fleet ?? []) expect(session, message.of);
        return fleet !== undefined;
      }
      const session = "deviceId" in message ? find(message) : undefined;
      if (!session) return false;
      if (message.kind === "work") expect(session, message.of);
      else hand(session, message);
      return true;
    },
  };
}

/** Hands a session a message about its device. */
function hand(session: Session, message: BusMessage): void {
  switch (message.kind) {
    case "cancel":
      session.assignments.cancel(message);
      break;
    case "settled":
      session.assignments.settled(message.attemptToken);
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
      if (session.epoch <= message.epoch && session.sessionId !== message.sessionId) session.part("replaced");
      break;
    case "disconnect":
      // The message was for a stream that a newer stream has replaced.
      if (session.epoch > message.epoch) break;
      if (message.reason === "revoked") session.part("revoked");
      else session.drain(DrainReason.OPERATOR, "an operator asked for it");
      break;
  }
}
