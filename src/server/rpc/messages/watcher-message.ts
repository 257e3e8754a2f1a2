import { create, type JsonObject } from "@bufbuild/protobuf";
import { type Duration, durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import { Notification } from "#gen/pinion/v1/run_pb.js";
import {
  CatchupPolicy,
  OverlapPolicy,
  type Watcher,
  WatcherSchema,
  type WatcherSpec,
  WatcherSpecSchema,
  WatcherStatus,
} from "#gen/pinion/v1/watcher_pb.js";
import { requireExpression } from "../../../cel/expression.ts";
import { refuse } from "../../../errors.ts";
import { checkSchedule, type ScheduleRules } from "../../../scheduler/schedule/schedule.ts";
import { conditionNames } from "../../../scheduler/starts/chains.ts";
import type { RunSummary } from "../../../store/work/runs/run-summaries.ts";
import { lackOf } from "../../../store/work/watchers/device-offers.ts";
import type { Placement, WatcherValues } from "../../../store/work/watchers/watcher-values.ts";
import type * as watchers from "../../../store/work/watchers/watchers.ts";
import { checkReferences, referencesOf } from "../../../values/input.ts";
import { agentWorkMessage, agentWorkOf } from "../../agent-work.ts";
import { notificationOf } from "../../enums.ts";
import { timestampOf } from "./moments.ts";
import { placementMessage, placementOf } from "./placement-message.ts";
import { runSummaryMessage } from "./run-message.ts";

/** Watchers between rows and messages. */

const overlaps: Record<OverlapPolicy, WatcherValues["overlap"]> = {
  [OverlapPolicy.UNSPECIFIED]: "skip",
  [OverlapPolicy.SKIP]: "skip",
  [OverlapPolicy.QUEUE_ONE]: "queue_one",
  [OverlapPolicy.QUEUE_ALL]: "queue_all",
};
const overlapMessages: Record<WatcherValues["overlap"], OverlapPolicy> = {
  skip: OverlapPolicy.SKIP,
  queue_one: OverlapPolicy.QUEUE_ONE,
  queue_all: OverlapPolicy.QUEUE_ALL,
};
const catchups: Record<CatchupPolicy, WatcherValues["catchup"]> = {
  [CatchupPolicy.UNSPECIFIED]: "collapse",
  [CatchupPolicy.COLLAPSE]: "collapse",
  [CatchupPolicy.MISS]: "miss",
};
const catchupMessages: Record<WatcherValues["catchup"], CatchupPolicy> = {
  collapse: CatchupPolicy.COLLAPSE,
  miss: CatchupPolicy.MISS,
};
const notifications: Record<Notification, WatcherValues["notification"]> = {
  [Notification.UNSPECIFIED]: "none",
  [Notification.NONE]: "none",
  [Notification.ON_FAILURE]: "on_failure",
  [Notification.ALWAYS]: "always",
};
const statusMessages: Record<watchers.Watcher["status"], WatcherStatus> = {
  active: WatcherStatus.ACTIVE,
  paused: WatcherStatus.PAUSED,
  no_executor: WatcherStatus.NO_EXECUTOR,
};

/** Defaults of the API, in milliseconds. */
const catchupWindowMsDefault = 86_400_000;
const timeoutMsDefault = 3_600_000;

const extractionSchemaBytesMax = 65_536;

/** `extras`: the parts that lists add on request. */
export function watcherMessage(
  row: watchers.Watcher,
  extras: { recentRuns: readonly RunSummary[]; nextSlots: readonly Date[] } = {
    recentRuns: [],
    nextSlots: [],
  },
): Watcher {
  return create(WatcherSchema, {
    id: row.id,
    slug: row.slug,
    spec: watcherSpec(row),
    version: row.version,
    status: isResting(row) ? WatcherStatus.RESTING : statusMessages[row.status],
    pausedReason: row.paused_reason,
    nextSlotAt: timestampOf(row.next_slot_at),
    nextDueAt: timestampOf(row.next_due_at),
    queuedSlotAt: timestampOf(row.queued_slot_at),
    lastFiredAt: timestampOf(row.last_fired_at),
    consecutiveFailures: row.consecutive_failures,
    backoffUntil: timestampOf(row.backoff_until),
    activeRunId: row.active_run_id ?? "",
    createdAt: timestampOf(row.created_at),
    updatedAt: timestampOf(row.updated_at),
    noExecutorReason: noExecutorReasonOf(row),
    unrunnableSlots: row.unrunnable_slots,
    recentRuns: extras.recentRuns.map(runSummaryMessage),
    nextSlots: extras.nextSlots.map((at) => timestampOf(at)),
  });
}

/** Whether the watcher is active, but its schedule has no future slot. */
function isResting(row: watchers.Watcher): boolean {
  return row.status === "active" && row.schedule !== null && row.next_slot_at === null;
}

function noExecutorReasonOf(row: watchers.Watcher): string {
  if (row.status === "no_executor") return row.paused_reason || "its device was deleted";
  return row.has_agent ? (lackOf(row.offers) ?? "") : `agent "${row.agent_id}" does not exist`;
}

/** The settings chosen by people, with the defaults as values. */
export function watcherSpec(row: watchers.Watcher): WatcherSpec {
  return create(WatcherSpecSchema, {
    name: row.name,
    prompt: row.prompt,
    agentId: row.agent_id,
    deviceId: row.device_id ?? "",
    agentKind: row.agent_kind,
    schedule: row.schedule ?? "",
    timeZone: row.time_zone,
    overlap: overlapMessages[row.overlap],
    catchup: catchupMessages[row.catchup],
    catchupWindow: durationFromMs(row.catchup_window_ms),
    jitter: durationFromMs(row.jitter_ms),
    minCooldown: durationFromMs(row.min_cooldown_ms),
    ...(row.start_deadline_ms === null ? {} : { startDeadline: durationFromMs(row.start_deadline_ms) }),
    timeout: durationFromMs(row.timeout_ms),
    maxAttempts: row.max_attempts,
    notification: notificationOf(row.notification),
    ...(row.extraction_schema === null ? {} : { extractionSchema: row.extraction_schema as JsonObject }),
    ...agentWorkMessage(row.agent_work),
    after: row.after,
    ...placementMessage(row.placement as Placement | null),
  });
}

/**
 * The values of a spec whose message is valid. Refuses with `invalid_argument` and the field the
 * errors beyond the message's rules: in the schedule, its zone, and the size of the extraction
 * schema.
 */
export function watcherValues(
  spec: WatcherSpec,
  options: { rules?: ScheduleRules; current?: watchers.Watcher } = {},
): WatcherValues {
  const schedule = spec.schedule.trim();
  const timeZone = spec.timeZone || "UTC";
  const { current } = options;
  // An unchanged schedule is not checked again: a schedule without future slots does not prevent
  // other edits.
  const stays = current && (current.schedule ?? "") === schedule && current.time_zone === timeZone;
  // The zone is checked even without a schedule.
  if (!stays) checkSchedule({ schedule: schedule === "" ? "@daily" : schedule, timeZone }, options.rules);
  checkExtractionSchema(spec.extractionSchema);
  checkReferences(spec.prompt);
  const [reference] = schedule === "" ? [] : referencesOf(spec.prompt);
  if (reference) {
    refuse(
      "invalid_argument",
      `spec.prompt: asks for ${reference}, and a slot of the schedule has no input; leave out the schedule, or start it by a hook or a trigger`,
      { field: "spec.prompt" },
    );
  }
  requireExpression(spec.afterCondition, conditionNames, "spec.after_condition");
  if (spec.afterCondition !== "" && spec.after.length === 0 && !current) {
    refuse("invalid_argument", "spec.after_condition: there is no watcher in after", {
      field: "spec.after_condition",
    });
  }
  return {
    name: spec.name,
    prompt: spec.prompt,
    agentId: spec.agentId,
    deviceId: spec.deviceId === "" ? null : spec.deviceId.toLowerCase(),
    agentKind: spec.agentKind,
    schedule: schedule === "" ? null : schedule,
    timeZone,
    overlap: overlaps[spec.overlap],
    catchup: catchups[spec.catchup],
    catchupWindowMs: lengthMs(spec.catchupWindow) ?? catchupWindowMsDefault,
    jitterMs: lengthMs(spec.jitter) ?? 0,
    minCooldownMs: lengthMs(spec.minCooldown) ?? 0,
    startDeadlineMs: lengthMs(spec.startDeadline) ?? null,
    timeoutMs: lengthMs(spec.timeout) ?? timeoutMsDefault,
    maxAttempts: spec.maxAttempts || 1,
    notification: notifications[spec.notification],
    extractionSchema: spec.extractionSchema ?? null,
    agentWork: agentWorkOf(spec),
    after: spec.after,
    placement: placementOf(spec),
  };
}

function lengthMs(duration: Duration | undefined): number | undefined {
  return duration && Math.trunc(durationMs(duration));
}

function checkExtractionSchema(schema: JsonObject | undefined): void {
  if (!schema) return;
  const field = "spec.extraction_schema";
  const json = JSON.stringify(schema);
  if (Buffer.byteLength(json) > extractionSchemaBytesMax) {
    refuse("invalid_argument", `${field}: must be at most ${extractionSchemaBytesMax} bytes as JSON`, {
      field,
    });
  }
  // jsonb accepts neither; JSON.stringify writes both, and nothing else, in these escapes.
  if (/(?<!\\)(?:\\\\)*\\u(?:0000|d[89a-f])/.test(json)) {
    refuse("invalid_argument", `${field}: holds a NUL character or half a surrogate pair`, { field });
  }
}

/**
 * A slug of the letters and digits of a name: "Daily check-in" becomes "daily-check-in". Empty for
 * a name without any.
 */
export function slugOf(name: string): string {
  return name
    .normalize("NFKD")
    .toLowerCase()
    .replace(/\p{M}/gu, "")
    .replace(/[^a-z0-9]+/g, "-")
    .slice(0, 63)
    .replace(/^-+|-+$/g, "");
}
