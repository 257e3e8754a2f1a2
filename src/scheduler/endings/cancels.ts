import { type Db, transaction } from "../../store/pg/database.ts";
import * as active from "../../store/work/attempts/active.ts";
import type { FailurePolicy, Settled } from "../../store/work/attempts/settlements.ts";
import * as runs from "../../store/work/runs/runs.ts";
import type { EndedTurn } from "../../store/work/turns/turn-settlements.ts";
import * as turns from "../../store/work/turns/turns.ts";
import type { Logger } from "../../telemetry/log.ts";
import { announceEnds, type CancelledAttempt, type Doorbell } from "../doorbell.ts";
import { settleWithEvents } from "./run-endings.ts";
import { appendEnded, endEach, endTurns } from "./turn-endings.ts";

/**
 * Cancelling: waiting work ends at once. For an active attempt the device is asked, and the work
 * ends when the device confirms or when its TTL passes.
 *
 *   pending ──▶ cancelled      claimed, running ──▶ asked ──device confirms, or TTL──▶ cancelled
 */

/** The announcements to make after the commit. */
export type Cancellation = { settled: Settled[]; turnsEnded: EndedTurn[]; asked: CancelledAttempt[] };

export const nothingCancelled: Cancellation = { settled: [], turnsEnded: [], asked: [] };

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
  const { orgId } = which;
  const { reason } = options;
  const locked = await runs.lockForCancel(tx, which, { only: options.only });
  const isEnding = (run: runs.LockedRun) =>
    run.status === "pending" || run.isAhead || options.mode === "at_once";
  const asked = locked.filter((run) => !isEnding(run));
  await active.requestCancel(tx, "run", { orgId, workIds: asked.map((run) => run.runId), reason });
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
      reason,
    })),
    options.policy,
  );
  return { settled, turnsEnded: [], asked: askedOf(asked, reason) };
}

/** Cancels a live turn in the caller's transaction, in which only events may follow. */
async function cancelTurnIn(
  tx: Db,
  turn: { orgId: string; turnId: string },
  { reason }: { reason: string },
): Promise<Cancellation> {
  const locked = await turns.lockForCancel(tx, turn);
  if (!locked) return nothingCancelled;
  if (locked.status === "pending") {
    const turnsEnded = await endTurns(tx, [
      { ...turn, attemptToken: null, holderId: null, status: "cancelled", reason, isRetryable: false },
    ]);
    return { ...nothingCancelled, turnsEnded };
  }
  await active.requestCancel(tx, "turn", { orgId: turn.orgId, workIds: [turn.turnId], reason });
  const { orgId, turnId: runId, holderId: deviceId, attemptToken } = locked;
  return { ...nothingCancelled, asked: askedOf([{ orgId, runId, deviceId, attemptToken }], reason) };
}

/**
 * Ends the work of a device that will never answer again, in the caller's transaction, in which
 * only events may follow: its live runs, the turns pinned to the device, and the turns held by it.
 */
export async function cancelOfDevice(
  tx: Db,
  device: { orgId: string; deviceId: string; reason: string },
  { policy, log }: { policy: FailurePolicy; log?: Logger | undefined },
): Promise<Cancellation> {
  const { orgId, deviceId, reason } = device;
  const locked = await turns.lockOfDevice(tx, device);
  const replies = locked.map(({ turnId, attemptToken, isPinned }) => ({
    ...{ orgId, turnId, attemptToken, holderId: null, reason },
    status: "failed" as const,
    // A pinned agent has lost its device, so the same message would be refused.
    isRetryable: !isPinned,
  }));
  const turnsEnded = await endEach(tx, replies, log);
  const cancellation = await cancelIn(tx, { orgId, deviceId }, { reason, policy, mode: "at_once" });
  await appendEnded(tx, turnsEnded, replies);
  return { ...cancellation, turnsEnded };
}

function askedOf(
  attempts: readonly {
    orgId: string;
    runId: string;
    deviceId: string | null;
    attemptToken: string | null;
  }[],
  reason: string,
): CancelledAttempt[] {
  return attempts.flatMap(({ orgId, runId: workId, deviceId, attemptToken }) =>
    deviceId && attemptToken ? [{ orgId, deviceId, workId, attemptToken, reason }] : [],
  );
}

/** Announces a cancellation after its commit. */
export function announce(
  doorbell: Pick<Doorbell, "settled" | "turnsEnded" | "turnsWithdrawn" | "cancelling">,
  { asked, ...ends }: Cancellation,
): void {
  announceEnds(doorbell, ends);
  doorbell.cancelling(asked);
}

type Bell = Parameters<typeof announce>[0];

/** Cancels a run; returns whether a live run was found. */
export function cancelRun(
  db: Db,
  run: { orgId: string; runId: string },
  options: { reason: string; policy: FailurePolicy; doorbell: Bell },
): Promise<boolean> {
  return commit(db, options.doorbell, (tx) => cancelIn(tx, run, { ...options, mode: "ask" }));
}

/** Cancels a turn; returns whether a live turn was found. */
export function cancelTurn(
  db: Db,
  turn: { orgId: string; turnId: string },
  options: { reason: string; doorbell: Bell },
): Promise<boolean> {
  return commit(db, options.doorbell, (tx) => cancelTurnIn(tx, turn, options));
}

/** Commits a cancellation and announces it; returns whether live work was found. */
async function commit(db: Db, doorbell: Bell, cancelIt: (tx: Db) => Promise<Cancellation>): Promise<boolean> {
  const cancellation = await transaction(db, cancelIt);
  announce(doorbell, cancellation);
  return Object.values(cancellation).some((list) => list.length > 0);
}
