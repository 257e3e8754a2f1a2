import type { Report, ReportVerdict } from "../../scheduler/completer.ts";
import type * as attempts from "../../store/work/attempts.ts";
import type { SessionName } from "../../store/work/presence.ts";
import type { AttemptName, AttemptSettlement } from "../../store/work/settlements.ts";

/** What an attempt works on; a turn's id stands where an attempt of a run names its run. */
export type AttemptKind = "run" | "turn";

/** An accept on its way to the database. It is moot once the device has said how the attempt ended. */
export type Acceptance = attempts.Acceptance & { isMoot: () => boolean };
export type AcceptResult = "running" | "gone" | "moot";

/** A session for which work may wait. */
type Waiter = { orgId: string; deviceId: string; isWorker: boolean };

/** An attempt whose end is wanted. */
type Wanted = AttemptName & { reason: string };

/**
 * What sessions say and ask of their attempts. Runs and turns are its two implementations (run-work.ts, turn-work.ts);
 * the sessions, the presence writer and the sweep know no other difference between them.
 */
export type Work = {
  accept(acceptance: Acceptance): Promise<AcceptResult>;
  /** Stores how an attempt ended, exactly once. */
  report(report: Report): Promise<ReportVerdict>;
  /** Takes an attempt away from its device's session. Answers whether the attempt was still the session's. */
  settle(settlement: AttemptSettlement): Promise<boolean>;
  /** Writes that heartbeats listed these attempts. */
  beat(attempts: readonly AttemptName[]): Promise<void>;
  /** The attempts among these that are not out any more. */
  findGone(attempts: readonly AttemptName[]): Promise<AttemptName[]>;
  /** Attempts whose end is wanted, at most `limit`. */
  listCancelling(limit: number): Promise<Wanted[]>;
  /** Attempts that were claimed for these sessions at least `ageMs` ago and are not accepted. */
  listClaimed(sessions: readonly SessionName[], ageMs: number): Promise<AttemptName[]>;
  /** The devices among these for which something waits. */
  findWaited(sessions: readonly Waiter[]): Promise<ReadonlySet<string>>;
  /** Resolves when all that waited was written. */
  idle(): Promise<void>;
};

export type Works = Readonly<Record<AttemptKind, Work>>;

/** Both kinds, in the order in which they are asked. */
export const attemptKinds: readonly AttemptKind[] = ["run", "turn"];
