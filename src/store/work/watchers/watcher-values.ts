import type { Json } from "../../pg/schema/schema-columns.ts";
import type { Catchup, Notification, Overlap, WatcherRow } from "../../pg/schema/schema-work.ts";

/**
 * The values of a watcher: as people choose them, as columns, and as the fields of events. Pure.
 */

/** The settings of a watcher chosen by people. Durations in milliseconds. */
export type WatcherValues = {
  name: string;
  prompt: string;
  /** Empty: the org's default agent. */
  agentId: string;
  deviceId: string | null;
  agentKind: string;
  /** Null: manual only. */
  schedule: string | null;
  timeZone: string;
  overlap: Overlap;
  catchup: Catchup;
  catchupWindowMs: number;
  jitterMs: number;
  minCooldownMs: number;
  startDeadlineMs: number | null;
  timeoutMs: number;
  maxAttempts: number;
  notification: Notification;
  extractionSchema: Json | null;
  /**
   * Workspace, budgets, questions and continue mode, as JSON of the fields of WatcherSpec; absent:
   * not set.
   */
  agentWork: Json;
  /** Watchers whose ends start the watcher, by slug or id. */
  after: readonly string[];
  /** Null: the watcher's runs need no placing. */
  placement: Placement | null;
};

/** The conditions of placing; absent conditions do not apply. */
export type Placement = {
  /** In CEL; see selector.ts. */
  selector?: string;
  /** Absent: on a single device. */
  spread?: "all";
  group?: { name: string; max: number; per: "org" | "device" };
  priority?: number;
  rate?: { key: string; perMinute: number };
};

/** A watcher as stored, with the values of its version. */
type Stored = WatcherRow & {
  prompt: string;
  extraction_schema: Json | null;
  agent_work: Json;
  /** Slugs. */
  after: string[];
};

/** The watcher's values as they stand. */
export function valuesOf(watcher: Stored): WatcherValues {
  return {
    name: watcher.name,
    prompt: watcher.prompt,
    agentId: watcher.agent_id,
    deviceId: watcher.device_id,
    agentKind: watcher.agent_kind,
    schedule: watcher.schedule,
    timeZone: watcher.time_zone,
    overlap: watcher.overlap,
    catchup: watcher.catchup,
    catchupWindowMs: watcher.catchup_window_ms,
    jitterMs: watcher.jitter_ms,
    minCooldownMs: watcher.min_cooldown_ms,
    startDeadlineMs: watcher.start_deadline_ms,
    timeoutMs: watcher.timeout_ms,
    maxAttempts: watcher.max_attempts,
    notification: watcher.notification,
    extractionSchema: watcher.extraction_schema,
    agentWork: watcher.agent_work,
    after: watcher.after,
    placement: watcher.placement as Placement | null,
  };
}

/** The values as columns of `watcher`. */
export function columnsOf(values: WatcherValues) {
  return {
    name: values.name,
    agent_id: values.agentId,
    device_id: values.deviceId,
    agent_kind: values.agentKind,
    schedule: values.schedule,
    time_zone: values.timeZone,
    overlap: values.overlap,
    catchup: values.catchup,
    catchup_window_ms: values.catchupWindowMs,
    jitter_ms: values.jitterMs,
    min_cooldown_ms: values.minCooldownMs,
    start_deadline_ms: values.startDeadlineMs,
    timeout_ms: values.timeoutMs,
    max_attempts: values.maxAttempts,
    notification: values.notification,
    day_budget: budgetOf(values),
    notify: notifyOf(values),
    placement: values.placement && JSON.stringify(values.placement),
    workspace: (values.agentWork as { workspace?: string }).workspace || null,
  };
}

function budgetOf({ agentWork }: WatcherValues): string | null {
  const { dayBudget } = agentWork as { dayBudget?: Json };
  return dayBudget && Object.keys(dayBudget).length > 0 ? JSON.stringify(dayBudget) : null;
}

/**
 * The watcher's notify entries as read at the end of a run: in lower case, without the enum's
 * prefix. Null: none.
 */
export function notifyOf({ agentWork }: Pick<WatcherValues, "agentWork">): string | null {
  const { notify } = agentWork as { notify?: { to: string; when: string }[] };
  if (!notify || notify.length === 0) return null;
  return JSON.stringify(
    notify.map(({ to, when }) => ({ to, when: when.replace(/^NOTIFY_WHEN_/, "").toLowerCase() })),
  );
}

/** Proto names of the fields, so that events use the names of the API. */
const fieldNames: Record<Exclude<keyof WatcherValues, "agentWork" | "placement">, string> = {
  name: "name",
  prompt: "prompt",
  agentId: "agent_id",
  deviceId: "device_id",
  agentKind: "agent_kind",
  schedule: "schedule",
  timeZone: "time_zone",
  overlap: "overlap",
  catchup: "catchup",
  catchupWindowMs: "catchup_window",
  jitterMs: "jitter",
  minCooldownMs: "min_cooldown",
  startDeadlineMs: "start_deadline",
  timeoutMs: "timeout",
  maxAttempts: "max_attempts",
  notification: "notification",
  extractionSchema: "extraction_schema",
  after: "after",
};

/** A watcher's values by the names of the API's fields. */
export function fieldsOf(values: WatcherValues): Record<string, unknown> {
  const decided = Object.fromEntries(
    (Object.keys(fieldNames) as (keyof typeof fieldNames)[]).map((key) => [fieldNames[key], values[key]]),
  );
  const work = values.agentWork as Record<string, unknown>;
  return {
    ...decided,
    ...Object.fromEntries(agentWorkFields.map(([key, name]) => [name, work[key] ?? null])),
    selector: values.placement?.selector ?? null,
    spread: values.placement?.spread ?? null,
    group: values.placement?.group ?? null,
    priority: values.placement?.priority ?? 0,
    rate_limit: values.placement?.rate ?? null,
  };
}

/** The fields of {@link WatcherValues.agentWork}, with their names in the proto. */
const agentWorkFields: [key: string, name: string][] = [
  ["workspace", "workspace"],
  ["runBudget", "run_budget"],
  ["dayBudget", "day_budget"],
  ["questions", "questions"],
  ["continueMode", "continue_mode"],
  ["afterCondition", "after_condition"],
  ["redact", "redact"],
  ["notify", "notify"],
];
