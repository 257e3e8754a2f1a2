import { create, type JsonObject } from "@bufbuild/protobuf";
import { type Duration, durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import {
  type ConcurrencyGroup,
  ConcurrencyGroupSchema,
  type WatcherSpec,
  WatcherSpecSchema,
} from "#gen/pinion/v1/watcher_pb.js";
import { formatBudget, parseBudget } from "../../print/budget.ts";
import { formatRate, parseRate } from "../../print/rates.ts";
import { parseLength } from "../../print/times.ts";
import * as words from "../../print/words.ts";
import { lengthText } from "../file/lengths.ts";
import type { WatcherTree } from "../file/shape.ts";
import { policyOf, type QuestionFields, questionsOfSpec, questionsOfTree } from "./question-fields.ts";

/**
 * A watcher's fields in the file's terms, including defaults. Durations are like "24h", devices are
 * ids.
 */
export type WatcherFields = {
  name: string;
  prompt: string;
  agent: string;
  device: string;
  selector: string;
  spread: string;
  group: string;
  max: number;
  per: string;
  priority: number;
  rate: string;
  agent_kind: string;
  schedule: string;
  time_zone: string;
  overlap: string;
  catchup: string;
  catchup_window: string;
  jitter: string;
  min_cooldown: string;
  start_deadline: string;
  timeout: string;
  max_attempts: number;
  notification: string;
  workspace: string;
  run_budget: string;
  day_budget: string;
  continue_mode: string;
  questions: QuestionFields | null;
  after: string[];
  after_condition: string;
  redact: string[];
  notify: NotifyFields[];
  extraction_schema: JsonObject | null;
};

/** An entry of `notify`: a destination by its slug, and the occasion. */
export type NotifyFields = { to: string; when: string };

/** Values of a watcher for keys missing in the file. Defaults of the API; the name is the slug. */
export const watcherDefaults = {
  device: "",
  selector: "",
  spread: "one",
  group: "",
  max: 1,
  per: "org",
  priority: 0,
  rate: "",
  agent_kind: "",
  schedule: "",
  time_zone: "UTC",
  overlap: "skip",
  catchup: "collapse",
  catchup_window: "24h",
  jitter: "0s",
  min_cooldown: "0s",
  start_deadline: "",
  timeout: "1h",
  max_attempts: 1,
  notification: "none",
  workspace: "",
  run_budget: "",
  day_budget: "",
  continue_mode: "fresh",
  questions: null,
  after: [],
  after_condition: "",
  redact: [],
  notify: [] as NotifyFields[],
  extraction_schema: null,
} as const satisfies Partial<WatcherFields>;

/** Update-mask path of each field. */
export const specPaths: Record<keyof WatcherFields, string> = {
  name: "name",
  prompt: "prompt",
  agent: "agent_id",
  device: "device_id",
  selector: "selector",
  spread: "spread",
  group: "group",
  max: "group",
  per: "group",
  priority: "priority",
  rate: "rate_limit",
  agent_kind: "agent_kind",
  schedule: "schedule",
  time_zone: "time_zone",
  overlap: "overlap",
  catchup: "catchup",
  catchup_window: "catchup_window",
  jitter: "jitter",
  min_cooldown: "min_cooldown",
  start_deadline: "start_deadline",
  timeout: "timeout",
  max_attempts: "max_attempts",
  notification: "notification",
  workspace: "workspace",
  run_budget: "run_budget",
  day_budget: "day_budget",
  continue_mode: "continue_mode",
  questions: "questions",
  after: "after",
  after_condition: "after_condition",
  redact: "redact",
  notify: "notify",
  extraction_schema: "extraction_schema",
};

/** Fields from a table of the file. `device` is the device's id. */
export function fieldsOfTree(
  tree: WatcherTree,
  found: { prompt: string; agent: string; device: string; extractionSchema: JsonObject | null },
): WatcherFields {
  const length = (text: string | undefined, otherwise: string) =>
    text === undefined ? otherwise : lengthText(parseLength(text, "a length"));
  return {
    name: tree.name ?? tree.slug,
    prompt: found.prompt,
    agent: found.agent,
    device: found.device,
    selector: (tree.selector ?? watcherDefaults.selector).trim(),
    spread: tree.spread ?? watcherDefaults.spread,
    group: tree.group ?? watcherDefaults.group,
    max: tree.max ?? watcherDefaults.max,
    per: tree.per ?? watcherDefaults.per,
    priority: tree.priority ?? watcherDefaults.priority,
    rate: rateText(tree.rate ?? watcherDefaults.rate),
    agent_kind: tree.agent_kind ?? watcherDefaults.agent_kind,
    schedule: scheduleOfTree(tree),
    time_zone: tree.time_zone || watcherDefaults.time_zone,
    overlap: tree.overlap ?? watcherDefaults.overlap,
    catchup: tree.catchup ?? watcherDefaults.catchup,
    catchup_window: length(tree.catchup_window, watcherDefaults.catchup_window),
    jitter: length(tree.jitter, watcherDefaults.jitter),
    min_cooldown: length(tree.min_cooldown, watcherDefaults.min_cooldown),
    start_deadline: length(tree.start_deadline, watcherDefaults.start_deadline),
    timeout: length(tree.timeout, watcherDefaults.timeout),
    max_attempts: tree.max_attempts ?? watcherDefaults.max_attempts,
    notification: tree.notification ?? watcherDefaults.notification,
    workspace: tree.workspace ?? watcherDefaults.workspace,
    run_budget: formatBudget(parseBudget(tree.run_budget ?? "", "run_budget")),
    day_budget: formatBudget(parseBudget(tree.day_budget ?? "", "day_budget")),
    continue_mode: tree.continue_mode ?? watcherDefaults.continue_mode,
    questions: questionsOfTree(tree.questions),
    after: [...new Set(tree.after ?? [])].sort(),
    after_condition: tree.after_condition ?? watcherDefaults.after_condition,
    redact: tree.redact ?? [],
    notify: tree.notify ?? [],
    extraction_schema: found.extractionSchema,
  };
}

/** The schedule in the API's single text: cron, "@at …" or "@every … from …". */
function scheduleOfTree({ schedule, at, every, anchor }: WatcherTree): string {
  if (at !== undefined) return `@at ${at.trim()}`;
  if (every !== undefined)
    return `@every ${every.trim()}${anchor === undefined ? "" : ` from ${anchor.trim()}`}`;
  return (schedule ?? watcherDefaults.schedule).trim();
}

/** The file's keys of a schedule. */
export function keysOfSchedule(schedule: string): {
  [key in "schedule" | "at" | "every" | "anchor"]?: string;
} {
  const at = /^@at\s+(.+)$/i.exec(schedule);
  if (at?.[1] !== undefined) return { at: at[1] };
  const every = /^@every\s+(\S+)(?:\s+(?:from\s+)?(\S.*))?$/i.exec(schedule);
  if (every?.[1] !== undefined) return { every: every[1], ...(every[2] ? { anchor: every[2] } : {}) };
  return { schedule };
}

/** Fields of a watcher from the server. */
export function fieldsOfSpec(spec: WatcherSpec): WatcherFields {
  const length = (duration: Duration | undefined, otherwise: string) =>
    duration ? lengthText(durationMs(duration)) : otherwise;
  return {
    name: spec.name,
    prompt: spec.prompt,
    agent: spec.agentId,
    device: spec.deviceId,
    selector: spec.selector,
    spread: words.spreadMode.word(spec.spread) || watcherDefaults.spread,
    group: spec.group?.name ?? watcherDefaults.group,
    max: spec.group?.max || watcherDefaults.max,
    per: words.groupScope.word(spec.group?.scope ?? 0) || watcherDefaults.per,
    priority: spec.priority,
    rate: spec.rateLimit ? formatRate(spec.rateLimit) : watcherDefaults.rate,
    agent_kind: spec.agentKind,
    schedule: spec.schedule,
    time_zone: spec.timeZone || watcherDefaults.time_zone,
    overlap: words.overlapPolicy.word(spec.overlap) || watcherDefaults.overlap,
    catchup: words.catchupPolicy.word(spec.catchup) || watcherDefaults.catchup,
    catchup_window: length(spec.catchupWindow, watcherDefaults.catchup_window),
    jitter: length(spec.jitter, watcherDefaults.jitter),
    min_cooldown: length(spec.minCooldown, watcherDefaults.min_cooldown),
    start_deadline: length(spec.startDeadline, watcherDefaults.start_deadline),
    timeout: length(spec.timeout, watcherDefaults.timeout),
    max_attempts: spec.maxAttempts || watcherDefaults.max_attempts,
    notification: words.notification.word(spec.notification) || watcherDefaults.notification,
    workspace: spec.workspace,
    run_budget: formatBudget(spec.runBudget),
    day_budget: formatBudget(spec.dayBudget),
    continue_mode: words.continueMode.word(spec.continueMode) || watcherDefaults.continue_mode,
    questions: questionsOfSpec(spec.questions),
    after: [...spec.after].sort(),
    after_condition: spec.afterCondition,
    redact: spec.redact,
    notify: spec.notify.map(({ to, when }) => ({ to, when: words.notifyWhen.word(when) })),
    extraction_schema: spec.extractionSchema ?? null,
  };
}

/** The spec message with the fields. */
export function specOfFields(fields: WatcherFields): WatcherSpec {
  const length = (text: string, name: string) =>
    text === "" ? undefined : durationFromMs(parseLength(text, name));
  return create(WatcherSpecSchema, {
    name: fields.name,
    prompt: fields.prompt,
    agentId: fields.agent,
    deviceId: fields.device,
    selector: fields.selector,
    spread: fields.spread === watcherDefaults.spread ? 0 : words.spreadMode.value(fields.spread, "spread"),
    priority: fields.priority,
    agentKind: fields.agent_kind,
    schedule: fields.schedule,
    timeZone: fields.time_zone,
    overlap: words.overlapPolicy.value(fields.overlap, "overlap"),
    catchup: words.catchupPolicy.value(fields.catchup, "catchup"),
    catchupWindow: length(fields.catchup_window, "catchup_window"),
    jitter: length(fields.jitter, "jitter"),
    minCooldown: length(fields.min_cooldown, "min_cooldown"),
    startDeadline: length(fields.start_deadline, "start_deadline"),
    timeout: length(fields.timeout, "timeout"),
    maxAttempts: fields.max_attempts,
    notification: words.notification.value(fields.notification, "notification"),
    workspace: fields.workspace,
    continueMode: words.continueMode.value(fields.continue_mode, "continue_mode"),
    notify: fields.notify.map(({ to, when }) => ({ to, when: words.notifyWhen.value(when, "notify") })),
    ...optional("runBudget", parseBudget(fields.run_budget, "run_budget")),
    ...optional("dayBudget", parseBudget(fields.day_budget, "day_budget")),
    ...optional("questions", policyOf(fields.questions)),
    after: fields.after,
    afterCondition: fields.after_condition,
    redact: fields.redact,
    ...optional("group", groupOfFields(fields)),
    ...optional("rateLimit", parseRate(fields.rate, "rate")),
    ...(fields.extraction_schema ? { extractionSchema: fields.extraction_schema } : {}),
  });
}

function groupOfFields({ group, max, per }: WatcherFields): ConcurrencyGroup | undefined {
  if (group === "") return undefined;
  return create(ConcurrencyGroupSchema, {
    ...{ name: group, max },
    scope: words.groupScope.value(per, "per"),
  });
}

/** Normalizes a rate limit: equal limits give equal texts. */
function rateText(text: string): string {
  const limit = parseRate(text, "rate");
  return limit ? formatRate(limit) : "";
}

function optional<Name extends string, Value>(name: Name, value: Value | undefined) {
  return value === undefined ? {} : ({ [name]: value } as Record<Name, Value>);
}
