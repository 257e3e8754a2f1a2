/** The values of a watcher's form, and their conversion for the server. */
import { create, type JsonObject } from "@bufbuild/protobuf";
import {
  type Budget,
  BudgetSchema,
  ContinueMode,
  QuestionDefault,
  QuestionPolicySchema,
  QuestionResponders,
} from "#gen/pinion/v1/activity_pb.js";
import { Notification } from "#gen/pinion/v1/run_pb.js";
import {
  CatchupPolicy,
  OverlapPolicy,
  type Watcher,
  type WatcherSpec,
  WatcherSpecSchema,
} from "#gen/pinion/v1/watcher_pb.js";
import { watchers as api } from "../data/api.ts";
import { devices } from "../data/devices.ts";
import { watchers } from "../data/watchers.ts";
import { lengthInput, parseLength, viewerZone } from "../times.ts";

/** The form's fields as text. */
export type Draft = Record<
  | "slug"
  | "name"
  | "prompt"
  | "agent"
  | "device"
  | "agentKind"
  | "workspace"
  | "continueMode"
  | "schedule"
  | "zone"
  | "overlap"
  | "catchup"
  | "catchupWindow"
  | "jitter"
  | "cooldown"
  | "startDeadline"
  | "timeout"
  | "attempts"
  | "notification"
  | "runTokens"
  | "runCost"
  | "dayTokens"
  | "dayCost"
  | "questionTimeout"
  | "questionDefault"
  | "questionResponders"
  | "questionWait"
  | "schema",
  string
>;

export function draftOf(watcher: Watcher | undefined): Draft {
  const spec = watcher?.spec;
  return {
    slug: watcher?.slug ?? "",
    name: spec?.name ?? "",
    prompt: spec?.prompt ?? "",
    agent: spec?.agentId ?? "",
    // With a single device, the device is preselected.
    device: spec ? spec.deviceId : devices.items.value.length === 1 ? devices.items.value[0]!.id : "",
    agentKind: spec?.agentKind ?? "",
    workspace: spec?.workspace ?? "",
    continueMode: String(spec?.continueMode || ContinueMode.FRESH),
    schedule: spec ? spec.schedule : "0 9 * * *",
    zone: spec ? spec.timeZone || "UTC" : viewerZone,
    overlap: String(spec?.overlap || OverlapPolicy.SKIP),
    catchup: String(spec?.catchup || CatchupPolicy.COLLAPSE),
    catchupWindow: lengthInput(spec?.catchupWindow),
    jitter: lengthInput(spec?.jitter),
    cooldown: lengthInput(spec?.minCooldown),
    startDeadline: lengthInput(spec?.startDeadline),
    timeout: lengthInput(spec?.timeout),
    attempts: String(spec?.maxAttempts || 1),
    notification: String(spec?.notification || Notification.NONE),
    runTokens: countInput(spec?.runBudget?.tokensMax),
    runCost: dollarsInput(spec?.runBudget?.costMicrosMax),
    dayTokens: countInput(spec?.dayBudget?.tokensMax),
    dayCost: dollarsInput(spec?.dayBudget?.costMicrosMax),
    questionTimeout: lengthInput(spec?.questions?.timeout),
    questionDefault: String(spec?.questions?.defaultAnswer || QuestionDefault.DENY),
    questionResponders: String(spec?.questions?.responders || QuestionResponders.USERS),
    questionWait: lengthInput(spec?.questions?.waitMax),
    schema: spec?.extractionSchema ? JSON.stringify(spec.extractionSchema, null, 2) : "",
  };
}

/** A field with invalid text; the form is then not sent. */
export class FieldError extends Error {}

/** Update-mask field of each form field. */
const paths: Record<Exclude<keyof Draft, "slug">, string> = {
  name: "name",
  prompt: "prompt",
  agent: "agent_id",
  device: "device_id",
  agentKind: "agent_kind",
  workspace: "workspace",
  continueMode: "continue_mode",
  schedule: "schedule",
  zone: "time_zone",
  overlap: "overlap",
  catchup: "catchup",
  catchupWindow: "catchup_window",
  jitter: "jitter",
  cooldown: "min_cooldown",
  startDeadline: "start_deadline",
  timeout: "timeout",
  attempts: "max_attempts",
  notification: "notification",
  runTokens: "run_budget",
  runCost: "run_budget",
  dayTokens: "day_budget",
  dayCost: "day_budget",
  questionTimeout: "questions",
  questionDefault: "questions",
  questionResponders: "questions",
  questionWait: "questions",
  schema: "extraction_schema",
};

function specOf(draft: Draft): WatcherSpec {
  const length = (text: string, label: string) => {
    const parsed = parseLength(text);
    if (parsed === null)
      throw new FieldError(`${label}: “${text}” is no length of time; write it like 90s, 15m or 1h30m.`);
    return parsed;
  };
  const attempts = Number(draft.attempts || "1");
  if (!Number.isInteger(attempts)) throw new FieldError("Attempts: a whole number from 1 to 20.");
  const spec = create(WatcherSpecSchema, {
    name: draft.name.trim(),
    prompt: draft.prompt,
    agentId: draft.agent,
    deviceId: draft.device,
    agentKind: draft.agentKind.trim(),
    workspace: draft.workspace.trim(),
    continueMode: Number(draft.continueMode),
    schedule: draft.schedule.trim(),
    timeZone: draft.zone.trim(),
    overlap: Number(draft.overlap),
    catchup: Number(draft.catchup),
    maxAttempts: attempts,
    notification: Number(draft.notification),
  });
  const lengths = {
    catchupWindow: length(draft.catchupWindow, "Catch-up window"),
    jitter: length(draft.jitter, "Jitter"),
    minCooldown: length(draft.cooldown, "Cooldown"),
    startDeadline: length(draft.startDeadline, "Start deadline"),
    timeout: length(draft.timeout, "Timeout"),
    extractionSchema: schemaOf(draft.schema),
    runBudget: budgetOf(draft.runTokens, draft.runCost, "a run"),
    dayBudget: budgetOf(draft.dayTokens, draft.dayCost, "a day"),
  };
  spec.questions = create(QuestionPolicySchema, {
    defaultAnswer: Number(draft.questionDefault),
    responders: Number(draft.questionResponders),
    ...withoutEmpty({
      timeout: length(draft.questionTimeout, "Answer within"),
      waitMax: length(draft.questionWait, "Timeout stands still for"),
    }),
  });
  return Object.assign(spec, withoutEmpty(lengths));
}

function withoutEmpty<T extends object>(fields: T): Partial<{ [K in keyof T]: NonNullable<T[K]> }> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Partial<{
    [K in keyof T]: NonNullable<T[K]>;
  }>;
}

const countInput = (count: bigint | undefined) => (count ? String(count) : "");

/** Millionths of a dollar as dollars, in integers: 64 bits have no exact number. */
function dollarsInput(micros: bigint | undefined): string {
  if (!micros) return "";
  const fraction = String(micros % 1_000_000n)
    .padStart(6, "0")
    .replace(/0+$/, "");
  return `${micros / 1_000_000n}${fraction && `.${fraction.padEnd(2, "0")}`}`;
}

/** Undefined without a bound. */
function budgetOf(tokens: string, cost: string, what: string): Budget | undefined {
  const count = tokens.replace(/[\s,_]/g, "");
  if (!/^\d{0,18}$/.test(count)) {
    throw new FieldError(`Tokens of ${what}: “${tokens}” is no whole number.`);
  }
  const [, whole = "", fraction = ""] = /^\$?(\d{0,12})(?:\.(\d{1,6}))?$/.exec(cost.trim()) ?? [];
  if (cost.trim() !== "" && whole + fraction === "") {
    throw new FieldError(`Cost of ${what}: “${cost}” is no amount of dollars; write it like 2.50.`);
  }
  const tokensMax = BigInt(count || "0");
  const costMicrosMax = BigInt(whole || "0") * 1_000_000n + BigInt(fraction.padEnd(6, "0"));
  return tokensMax + costMicrosMax === 0n ? undefined : create(BudgetSchema, { tokensMax, costMicrosMax });
}

function schemaOf(text: string): JsonObject | undefined {
  if (text.trim() === "") return undefined;
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
  } catch {
    // The error is thrown below, together with other invalid JSON.
  }
  throw new FieldError("JSON schema: this is no JSON object.");
}

export async function createNew(draft: Draft, requestId: string): Promise<string> {
  const { watcher } = await api.createWatcher({
    slug: draft.slug.trim(),
    spec: specOf(draft),
    requestId,
  });
  if (watcher) watchers.touch(watcher.id);
  const but = watcher?.noExecutorReason ? ` It has nobody to run it: ${watcher.noExecutorReason}.` : "";
  return `${watcher?.slug} is created.${but}`;
}

export async function update(watcher: Watcher, draft: Draft): Promise<string> {
  const before = draftOf(watcher);
  const changed = (Object.keys(paths) as (keyof typeof paths)[]).filter(
    (name) => draft[name] !== before[name],
  );
  if (changed.length === 0) return `${watcher.slug} stays as it was.`;
  const { watcher: saved } = await api.updateWatcher({
    watcherId: watcher.id,
    spec: specOf(draft),
    updateMask: { paths: [...new Set(changed.map((name) => paths[name]))] },
    expectedVersion: watcher.version,
  });
  // The next edit begins with the version of this one, also before the list is read again.
  if (saved) watchers.put({ ...saved, recentRuns: watcher.recentRuns, nextSlots: watcher.nextSlots });
  watchers.touch(watcher.id);
  return `${watcher.slug} is saved.`;
}
