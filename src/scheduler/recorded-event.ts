import type { NewEvent } from "../store/work/service/events.ts";
import type { RecordedRun } from "../store/work/watchers/slot-rows.ts";

/** The event of a recorded run. */
export function eventOf(run: RecordedRun): NewEvent {
  return {
    orgId: run.orgId,
    kind: run.status === "skipped" ? "run.skipped" : "run.created",
    actor: "pinion",
    runId: run.runId,
    watcherId: run.watcherId,
    deviceId: run.deviceId,
    data: {
      ...(run.scheduledFor ? { scheduled_for: run.scheduledFor.toISOString() } : {}),
      ...(run.skipReason ? { skip_reason: run.skipReason, reason: run.reason } : {}),
    },
  };
}
