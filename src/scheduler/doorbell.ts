import type { KeptResult } from "../store/work/late-results.ts";
import type { RecordedRun } from "../store/work/schedules.ts";
import type { Settled } from "../store/work/settlements.ts";

/** An attempt whose end is wanted. */
export type CancelledAttempt = {
  orgId: string;
  deviceId: string;
  runId: string;
  attemptToken: string;
  reason: string;
};

/** What was settled, and the runs that its end started. */
export type Followed = Settled & { followers?: readonly RecordedRun[] };

/**
 * What the scheduler tells the rest of Pinion after a commit. All of it is a hint: the rows are the truth, and losing
 * every one of these costs seconds (the sweep), never a run.
 */
export interface Doorbell {
  /** Runs were written; their devices may have work, but for those that were claimed as they were written. */
  recorded(runs: readonly RecordedRun[]): void;
  /** Attempts were settled; their devices have a free slot, and may have work. */
  settled(settled: readonly Followed[]): void;
  /** Late results were kept beside their runs; those who watch the runs look. */
  kept(results: readonly Pick<KeptResult, "orgId" | "runId">[]): void;
  /** The end of attempts is wanted; their devices are to be told. */
  cancelling(attempts: readonly CancelledAttempt[]): void;
}
