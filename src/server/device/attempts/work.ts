import type { WorkKind } from "../../../store/work/attempts/active.ts";
import type { AttemptName, AttemptSettlement } from "../../../store/work/attempts/settlements.ts";
import type { AttemptState } from "./outstanding.ts";

export type AttemptKind = WorkKind;

/**
 * An accept on its way to the database, with the attempt as its session knows it at the time of the
 * write: the times of its push and accept by the monotonic clock in milliseconds, and whether the
 * device has reported its end (`reporting`).
 */
export type Acceptance = AttemptName & {
  attempt: { readonly state: AttemptState; readonly pushedAt: number; readonly acceptedAt: number };
};
export type AcceptResult = "running" | "gone" | "moot";

/** A session with possibly waiting work. */
type Waiter = { orgId: string; deviceId: string; isWorker: boolean };

/**
 * The operations of sessions on their attempts. Runs and turns are the two implementations
 * (works.ts); the sessions, the presence writer and the sweep treat both alike otherwise.
 */
export type Work = {
  accept(acceptance: Acceptance): Promise<AcceptResult>;
  /**
   * Takes an attempt away from its device's session. Returns whether the attempt was still the
   * session's.
   */
  settle(settlement: AttemptSettlement): Promise<boolean>;
  /** Writes the attempts listed by heartbeats. */
  beat(attempts: readonly AttemptName[]): Promise<void>;
  /** The devices of the sessions with waiting work. */
  findWaited(sessions: readonly Waiter[]): Promise<ReadonlySet<string>>;
  /** Resolves when all waiting items are written. */
  idle(): Promise<void>;
};

export type Works = Readonly<Record<AttemptKind, Work>>;

/** Both kinds, in the order of processing. */
export const attemptKinds: readonly AttemptKind[] = ["run", "turn"];
