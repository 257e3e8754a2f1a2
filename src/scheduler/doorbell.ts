import type { KeptResult } from "../store/work/attempts/late-results.ts";
import type { Settled } from "../store/work/attempts/settlements.ts";
import type { EndedTurn, WithdrawnTurn } from "../store/work/turns/turn-settlements.ts";
import type { RecordedRun } from "../store/work/watchers/slot-rows.ts";

/** An attempt with a requested cancel. */
export type CancelledAttempt = {
  orgId: string;
  deviceId: string;
  workId: string;
  attemptToken: string;
  reason: string;
};

/** A settlement, with the runs started by its end. */
export type Followed = Settled & { followers?: readonly RecordedRun[] };

/** Ends of work, each list under the announcement that tells of the ends. */
export type Ends = {
  settled: readonly Followed[];
  turnsEnded: readonly EndedTurn[];
  turnsWithdrawn: readonly WithdrawnTurn[];
};

/** Announces ends after their commit. */
export function announceEnds(doorbell: Pick<Doorbell, keyof Ends>, ends: Partial<Ends>): void {
  if (ends.settled) doorbell.settled(ends.settled);
  if (ends.turnsEnded) doorbell.turnsEnded(ends.turnsEnded);
  if (ends.turnsWithdrawn) doorbell.turnsWithdrawn(ends.turnsWithdrawn);
}

/**
 * The scheduler's announcements to the rest of Pinion after a commit. Every announcement is a hint:
 * the database has the state, and losing all announcements costs seconds (the sweep), never a run.
 */
export interface Doorbell {
  /**
   * Runs were written; their devices may have work, except for runs claimed by the same statement.
   */
  recorded(runs: readonly RecordedRun[]): void;
  /** Attempts were settled; their devices have a free slot, and may have work. */
  settled(settled: readonly Followed[]): void;
  /** Late results were stored beside their runs; viewers of the runs are woken. */
  kept(results: readonly Pick<KeptResult, "orgId" | "workId">[]): void;
  /** The end of attempts is wanted; their devices are to be told. */
  cancelling(attempts: readonly CancelledAttempt[]): void;
  /** A turn was armed; its device may have work, or, for null, the org's fleet workers. */
  turnStarted(turn: { orgId: string; turnId: string; deviceId: string | null }): void;
  /**
   * Turns had their reply; their holders have a free slot, and the next turns of their
   * conversations may begin.
   */
  turnsEnded(ended: readonly EndedTurn[]): void;
  /** Late replies were stored beside their turns; viewers of the turns are woken. */
  repliesKept(replies: readonly { orgId: string; turnId: string }[]): void;
  /** Claims were taken back; the turns wait again. */
  turnsWithdrawn(withdrawn: readonly WithdrawnTurn[]): void;
}
