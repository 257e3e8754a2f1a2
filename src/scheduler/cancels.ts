import { type Db, transaction } from "../store/pg/database.ts";
import * as runs from "../store/work/runs.ts";
import type { FailurePolicy, Settled } from "../store/work/settlements.ts";
import type { CancelledAttempt, Doorbell } from "./doorbell.ts";
import { settleWithEvents } from "./settle.ts";

/**
 * Cancelling: a pending run ends at once. For an active run the device is asked, and the run ends
 * when the device confirms or when its TTL passes.
 */

/** The announcements to make after the commit. */
export type Cancellation = { settled: Settled[]; asked: CancelledAttempt[] };

export const nothingCancelled: Cancellation = { settled: [], asked: [] };

type Which = { orgId: string } & (
  | { runId: string }
  | { runIds: readonly string[] }
  | { watcherId: string }
  | { deviceId: string }
);

/**
 * Cancels live runs in the caller's transaction, in which only events may follow. `at_once` also
 * ends active runs, for a deleted device, which will never answer. The attempts of a deleted fleet
 * worker are lost, and their runs go to other workers while attempts are left. A run claimed ahead
 * ends at once: its device has not heard of the run. `only`: cancels runs claimed ahead and no
 * others.
 */
export async function cancelIn(
  tx: Db,
  which: Which,
  options: { reason: string; policy: FailurePolicy; mode: "ask" | "at_once"; only?: "ahead" },
): Promise<Cancellation> {
  const all = await runs.lockForCancel(tx, which);
  const locked = options.only === "ahead" ? all.filter((run) => run.isAhead) : all;
  const isEnding = (run: runs.LockedRun) =>
    run.status === "pending" || run.isAhead || options.mode === "at_once";
  const asked = locked.filter((run) => !isEnding(run));
  await runs.requestCancel(tx, {
    orgId: which.orgId,
    runIds: asked.map((run) => run.runId),
    reason: options.reason,
  });
  const settled = await settleWithEvents(
    tx,
    locked.filter(isEnding).map((run) => ({
      orgId: run.orgId,
      workId: run.runId,
      attemptToken: run.attemptToken,
      deviceId: null,
      ...(options.mode === "at_once" && !run.isPinned
        ? { action: "finish_or_retry", status: "timeout" }
        : { action: "finish", status: "cancelled" }),
      reason: options.reason,
    })),
    options.policy,
  );
  return {
    settled,
    asked: asked.map((run) => ({
      orgId: run.orgId,
      deviceId: run.deviceId!,
      workId: run.runId,
      attemptToken: run.attemptToken!,
      reason: options.reason,
    })),
  };
}

/** Announces a cancellation after its commit. */
export function announce(doorbell: Doorbell, cancellation: Cancellation): void {
  doorbell.settled(cancellation.settled);
  doorbell.cancelling(cancellation.asked);
}

/** Cancels a run; returns whether a live run was found. */
export async function cancelRun(
  db: Db,
  run: { orgId: string; runId: string },
  options: { reason: string; policy: FailurePolicy; doorbell: Doorbell },
): Promise<boolean> {
  const cancellation = await transaction(db, (tx) => cancelIn(tx, run, { ...options, mode: "ask" }));
  announce(options.doorbell, cancellation);
  return cancellation.settled.length + cancellation.asked.length > 0;
}
