import type { Refusal } from "../../../errors.ts";
import type { Session } from "../session/session.ts";

/**
 * The streams of the replica, and the serving sessions among them: by device, and fleet workers by
 * org. A stream is listed from its start to its end, also before its hello; a session is registered
 * for its device after opening.
 */
export type Registry = {
  /** Streams of any state. */
  readonly streamsCount: number;
  readonly sessionsCount: number;
  /** Counts a stream until its end, and then calls `release`. */
  add(session: Session, release: () => void): void;
  /**
   * Registers a session for its device; an older session of the device is replaced. False: the
   * registered session is newer.
   */
  seat(session: Session): boolean;
  /** Removes a stream and its session. */
  remove(session: Session): void;
  of(deviceId: string): Session | undefined;
  /** The fleet workers' sessions of an org; undefined where there are none. */
  fleetOf(orgId: string): ReadonlySet<Session> | undefined;
  streams(): IterableIterator<Session>;
  sessions(): Session[];
  /** Resolves once no stream is left, and after `ms` at the latest. */
  empty(ms: number): Promise<void>;
  /** Ends the remaining streams. */
  closeAll(cause: string, refusal: Refusal): void;
};

export function createRegistry(): Registry {
  const streams = new Map<Session, () => void>();
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
      streams.get(session)?.();
      streams.delete(session);
      if (sessions.get(deviceId) === session) sessions.delete(deviceId);
      const fleet = fleets.get(orgId);
      if (fleet?.delete(session) && fleet.size === 0) fleets.delete(orgId);
      if (streams.size === 0) onEmpty?.();
    },
    of: (deviceId) => sessions.get(deviceId),
    fleetOf: (orgId) => fleets.get(orgId),
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
