/** Chooses the destinations told of ends of runs. Pure; deliveries.ts writes the rows. */

import type { Settled } from "../../store/work/attempts/settlements.ts";
import type { Alert } from "../../store/work/messages/alerts.ts";
import type { Notice, NotifyEntry, NotifyReason } from "../../store/work/messages/deliveries.ts";
import type { QuestionRow } from "../../store/work/turns/questions.ts";
import type { RecordedRun } from "../../store/work/watchers/slot-rows.ts";

/**
 * The notices of a run's end: at most one per destination, by the first entry that applies. Only
 * the database knows whether a result has changed; it is not asked if another entry applies anyway.
 */
export function noticesOf(run: Settled, attention: readonly string[] | undefined): Notice[] {
  if (run.action !== "finished" || !run.notify) return [];
  const holding = run.notify.filter(({ when }) => holds(when, run, attention ?? []));
  return destinationsOf(holding).map((to) => {
    const reasons = holding.filter((entry) => entry.to === to).map(({ when }) => when);
    const certain = reasons.find((reason) => reason !== "change");
    return {
      orgId: run.orgId,
      to,
      watcherId: run.watcherId,
      runId: run.runId,
      kind: `run.${run.status}`,
      reason: certain ?? "change",
      subject: attention?.length ? { attention } : {},
      ...(certain ? {} : { ifUnlike: { windowId: run.priorWindowId } }),
    };
  });
}

/** Whether an entry applies to the end of a run; for `change`, whether it may apply. */
function holds(when: NotifyReason, run: Settled, attention: readonly string[]): boolean {
  const isFailure = run.status === "failed" || run.status === "timeout";
  const isTold = isFailure || run.status === "completed";
  switch (when) {
    case "always":
      return isTold;
    case "failure":
      return isFailure;
    case "recovery":
      return run.status === "completed" && run.wasFailing;
    case "change":
      return run.status === "completed" && run.windowId !== null;
    case "attention":
      return isTold && attention.length > 0;
    case "question":
      return false;
  }
}

/** The notices of a run's question when it is asked. */
export function noticesOfQuestion(question: QuestionRow): Notice[] {
  const { orgId, watcherId, runId, attemptToken, id } = question;
  // The person who started a turn waits for its reply and sees the question there.
  if (runId === null || watcherId === null) return [];
  const asked = (question.notify ?? []).filter(({ when }) => when === "question");
  return destinationsOf(asked).map((to) => ({
    ...{ orgId, to, watcherId, runId },
    kind: "question.asked",
    reason: "question",
    subject: { questionId: id, attemptToken },
  }));
}

function destinationsOf(entries: readonly NotifyEntry[]): string[] {
  return [...new Set(entries.map(({ to }) => to))];
}

/** A watcher paused after failures is an alert for the org. */
export function alertsOf(run: Settled): Alert[] {
  if (!run.isWatcherPaused) return [];
  const { orgId, watcherId, runId, reason, consecutiveFailures } = run;
  return [{ orgId, watcherId, runId, kind: "watcher.paused", subject: { reason, consecutiveFailures } }];
}

/** A used-up day budget is reported with the first slot of the day skipped for the budget. */
export function alertsOfSlot(slot: RecordedRun): Alert[] {
  if (slot.skipReason !== "budget") return [];
  const { orgId, watcherId, reason, dueAt } = slot;
  const day = dueAt.toISOString().slice(0, 10);
  return [
    {
      orgId,
      watcherId,
      kind: "budget.reached",
      subject: { reason, day },
      onceKey: `budget ${watcherId} ${day}`,
    },
  ];
}
