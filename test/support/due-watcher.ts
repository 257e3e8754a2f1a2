import type { DueWatcher } from "../../src/store/work/watchers/schedules.ts";

/** A watcher without jitter, limits, runs or a backlog, as a pass locks the watcher. */
export function dueWatcher(
  due: Pick<DueWatcher, "schedule" | "timeZone" | "nextSlotAt" | "now"> & Partial<DueWatcher>,
): DueWatcher {
  return {
    orgId: "local",
    watcherId: "018f0000-0000-7000-8000-000000000001",
    deviceId: null,
    isGated: false,
    overlap: "skip",
    catchup: "collapse",
    catchupWindowMs: 86_400_000,
    jitterMs: 0,
    minCooldownMs: 0,
    status: "active",
    nextDueAt: due.nextSlotAt,
    lastSlotAt: null,
    lastRunAt: null,
    windowCursorAt: null,
    backoffUntil: null,
    budget: null,
    hasAgent: true,
    offers: null,
    hasActiveRun: false,
    queuedSlotAt: null,
    backlogSlotAt: null,
    backlogSource: null,
    backlogRunId: null,
    ...due,
  };
}
