/** The values of a watcher's form, and their conversion for the server. */
import { create, type JsonObject } from "@bufbuild/protobuf";
import { ContinueMode } from "#gen/pinion/v1/activity_pb.js";
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
  };
  return Object.assign(
    spec,
    Object.fromEntries(Object.entries(lengths).filter(([, value]) => value !== undefined)),
  );
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
  await api.updateWatcher({
    watcherId: watcher.id,
    spec: specOf(draft),
    updateMask: { paths: changed.map((name) => paths[name]) },
    expectedVersion: watcher.version,
  });
  watchers.touch(watcher.id);
  return `${watcher.slug} is saved.`;
}
