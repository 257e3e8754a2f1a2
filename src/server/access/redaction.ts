/**
 * Redaction of answers: hides agents' texts from devices whose output the caller may not read.
 * Every message of an answer of every rpc passes here, so no handler decides and none can forget
 * (docs/security.md has the list).
 */
import type { DescMessage, JsonObject, Message } from "@bufbuild/protobuf";
import { type Event, EventSchema } from "#gen/pinion/v1/event_pb.js";
import { type Device, DeviceSchema, GrantPermission } from "#gen/pinion/v1/fleet_pb.js";
import {
  type ExplainRunResponse,
  ExplainRunResponseSchema,
  type LateResult,
  LateResultSchema,
  type PastAttempt,
  PastAttemptSchema,
  type Run,
  type RunActivity,
  RunActivitySchema,
  type RunOutput,
  RunOutputSchema,
  type RunQuestion,
  RunQuestionSchema,
  RunSchema,
  RunStatus,
  type Window,
  WindowSchema,
} from "#gen/pinion/v1/run_pb.js";
import { type Turn, TurnSchema } from "#gen/pinion/v1/turn_pb.js";
import * as grants from "../../store/people/devices/grants.ts";
import * as rights from "../../store/people/devices/rights.ts";
import { devicesOfWindows } from "../../store/people/devices/subjects.ts";
import type { Db } from "../../store/pg/database.ts";
import type { Ownership } from "./ownership.ts";

const hiddenReason = "hidden: the device's owner may let you read what its runs say";

/** Fields that hold agents' texts, by proto name; redaction.test.ts lists the fields that stay. */
export const hiddenFields = new Map<string, readonly string[]>([
  [
    RunSchema.typeName,
    [
      ...["output_tail", "stderr_tail", "result", "stop_reason", "denials", "notes", "session_id"],
      ...["kept_workspace", "model_used", "executor", "has_transcript", "input"],
    ],
  ],
  [WindowSchema.typeName, ["extracted_data", "result", "structured", "model_used"]],
  [RunQuestionSchema.typeName, ["question", "option_id", "text"]],
  [LateResultSchema.typeName, ["output", "result", "structured", "reason"]],
  [PastAttemptSchema.typeName, ["output_tail"]],
  [RunOutputSchema.typeName, ["data"]],
  [RunActivitySchema.typeName, ["activity"]],
  [TurnSchema.typeName, ["input", "reply", "signal", "output_tail"]],
]);

type Hider = (message: never) => void;

/** Functions that remove the agents' texts of a message, by message type. */
const hiders = new Map<string, Hider>([
  [RunSchema.typeName, hideRun],
  [WindowSchema.typeName, hideWindow],
  [RunQuestionSchema.typeName, hideQuestion],
  [LateResultSchema.typeName, hideLateResult],
  [PastAttemptSchema.typeName, hidePastAttempt],
  // Live output of a run that had another device, or none, when its viewer was admitted.
  [RunOutputSchema.typeName, (output: RunOutput) => clear(output, RunOutputSchema)],
  [RunActivitySchema.typeName, (activity: RunActivity) => clear(activity, RunActivitySchema)],
  [TurnSchema.typeName, hideTurn],
  [EventSchema.typeName, hideEvent],
]);

function hideRun(run: Run): void {
  if (hasToldReason(run)) run.reason = hiddenReason;
  clear(run, RunSchema);
  run.outputHidden = true;
}

function hidePastAttempt(past: PastAttempt): void {
  clear(past, PastAttemptSchema);
  if (past.isReported && past.reason !== "") past.reason = hiddenReason;
}

/** A readable run that waits for its next attempt may have the reason of an attempt elsewhere. */
function hidePastReason(run: Run, hidden: ReadonlySet<Message>): void {
  if (run.pastAttempts.some((past) => hidden.has(past) && past.isReported && past.reason === run.reason))
    run.reason = hiddenReason;
}

/**
 * Whether a device may have written the run's reason, with text of its program: the reason of a
 * reported end, or of a failure. A run that begins again has the reason of its last attempt.
 */
function hasToldReason({ status, isReported, reason, pastAttempts }: Run): boolean {
  if (reason === "") return false;
  return (
    isReported ||
    status === RunStatus.COMPLETED ||
    status === RunStatus.FAILED ||
    pastAttempts.some((past) => past.isReported && past.reason === reason)
  );
}

function hideWindow(window: Window): void {
  clear(window, WindowSchema);
  window.outputHidden = true;
}

function hideLateResult(late: LateResult): void {
  clear(late, LateResultSchema);
}

function hideQuestion(question: RunQuestion): void {
  clear(question, RunQuestionSchema);
  question.outputHidden = true;
}

function hideTurn(turn: Turn): void {
  clear(turn, TurnSchema);
  if (turn.reason !== "") turn.reason = hiddenReason;
}

/**
 * Devices' reports of runs quote their programs. Other events quote no program, except the last
 * failure of a paused watcher, questions with their answers, and a condition's error, which quotes
 * the result.
 */
function hideEvent(event: Event): void {
  if (!event.data) return;
  const { reason, last_failure, title, option_id, ...rest } = event.data;
  const quotes = event.actor.startsWith("device:") || event.kind === "watcher.after_failed";
  event.data = (quotes || reason === undefined ? rest : { ...rest, reason }) as JsonObject;
}

/**
 * An explanation contains the reasons of the run and of its past attempts: hidden reasons are
 * removed from its texts. To be called before the reasons are hidden in the run.
 */
function hideInExplanation(explanation: ExplainRunResponse, hidden: ReadonlySet<Message>): void {
  const { run } = explanation;
  if (!run) return;
  const told = [
    ...(hidden.has(run) && hasToldReason(run) ? [run.reason] : []),
    ...run.pastAttempts.flatMap((past) =>
      hidden.has(past) && past.isReported && past.reason !== "" ? [past.reason] : [],
    ),
  ];
  // The longest first: a reason may contain another.
  told.sort((a, b) => b.length - a.length);
  const without = (text: string) => told.reduce((left, reason) => left.replaceAll(reason, "(hidden)"), text);
  explanation.summary = without(explanation.summary);
  explanation.nextStep = without(explanation.nextStep);
  for (const fact of explanation.facts) fact.text = without(fact.text);
  if (!hidden.has(run)) return;
  for (const link of explanation.chain) if (link.reason !== "") link.reason = hiddenReason;
}

function clear(message: Message, schema: DescMessage): void {
  for (const name of hiddenFields.get(schema.typeName)!) {
    const field = schema.fields.find((candidate) => candidate.name === name);
    if (!field) throw new Error(`${schema.typeName} has no field ${name}`);
    const record = message as unknown as Record<string, unknown>;
    if (field.fieldKind === "list") record[field.localName] = [];
    else if (field.fieldKind === "scalar") record[field.localName] = emptyOf(record[field.localName]);
    else delete record[field.localName];
  }
}

function emptyOf(value: unknown): unknown {
  if (value instanceof Uint8Array) return new Uint8Array();
  return typeof value === "boolean" ? false : "";
}

/** By message type, whether a redacted message occurs in the type at any depth. */
const reaching = new Map<string, boolean>();

function reaches(desc: DescMessage): boolean {
  const known = reaching.get(desc.typeName);
  if (known !== undefined) return known;
  // Guards against cycles; the outermost call decides a type in progress.
  reaching.set(desc.typeName, false);
  const found =
    hiders.has(desc.typeName) ||
    desc.typeName === DeviceSchema.typeName ||
    desc.fields.some((field) => field.message !== undefined && reaches(field.message));
  reaching.set(desc.typeName, found);
  return found;
}

type Found = { desc: DescMessage; message: Message };

/** Collects the messages, at any depth, that are redacted or state the caller's rights. */
function collect(desc: DescMessage, message: Message, found: Found[]): void {
  if (!reaches(desc)) return;
  if (hiders.has(desc.typeName) || desc.typeName === DeviceSchema.typeName) found.push({ desc, message });
  const record = message as unknown as Record<string, unknown>;
  for (const field of desc.fields) {
    if (!field.message || !reaches(field.message)) continue;
    const value = field.oneof
      ? (() => {
          const chosen = record[field.oneof.localName] as { case?: string; value?: unknown };
          return chosen?.case === field.localName ? chosen.value : undefined;
        })()
      : record[field.localName];
    if (value === undefined || value === null) continue;
    const values =
      field.fieldKind === "list"
        ? (value as Message[])
        : field.fieldKind === "map"
          ? Object.values(value)
          : [value];
    for (const inner of values) collect(field.message, inner as Message, found);
  }
}

/**
 * Removes from an answer, in place, the fields that the caller may not read, and sets the caller's
 * rights on its devices. Notes the first use of the grants that allow reading; returns whether a
 * first use was noted. `remembered` keeps the caller's standing on devices between the messages of
 * a stream; its owner empties the map in time.
 */
export async function redact(
  { db, principal }: Ownership,
  desc: DescMessage,
  answer: Message,
  remembered: Map<string, rights.Standing> = new Map(),
): Promise<boolean> {
  const found: Found[] = [];
  collect(desc, answer, found);
  if (found.length === 0) return false;
  if (principal.isEverywhere) {
    for (const { desc, message } of found)
      if (desc.typeName === DeviceSchema.typeName) allowAll(message as Device);
    return false;
  }
  // A device's own calls are answered with its own data alone (R6).
  if (principal.deviceId !== null) return false;
  const { orgId, actor } = principal;
  const ofWindows = await findWindows(db, orgId, found);
  await readStandings({ db, principal }, found, { ofWindows, remembered });
  const used = new Set<string>();
  const hidden = new Set<Message>();
  for (const { desc, message } of found) {
    if (desc.typeName === DeviceSchema.typeName)
      allow(message as Device, remembered.get((message as Device).id));
    else if (!isReadable({ desc, message }, { ofWindows, remembered, used })) hidden.add(message);
  }
  if (desc.typeName === ExplainRunResponseSchema.typeName) {
    hideInExplanation(answer as ExplainRunResponse, hidden);
  }
  // A run comes before its past attempts, so that a reason is compared before it is hidden.
  for (const { desc, message } of found) {
    if (hidden.has(message)) hide(desc, message);
    else if (desc.typeName === RunSchema.typeName) hidePastReason(message as Run, hidden);
  }
  if (used.size === 0) return false;
  for (const standing of remembered.values()) for (const grant of standing.grants) grant.isUsed = true;
  return grants.noteFirstUse(db, { orgId, grantIds: [...used], actor });
}

/** Reads the caller's standing on the devices of answers that are about to be redacted. */
export async function remember(
  ownership: Ownership,
  desc: DescMessage,
  answers: readonly Message[],
  remembered: Map<string, rights.Standing>,
): Promise<void> {
  const { isEverywhere, deviceId } = ownership.principal;
  if (isEverywhere || deviceId !== null) return;
  const found: Found[] = [];
  for (const answer of answers) collect(desc, answer, found);
  await readStandings(ownership, found, { ofWindows: new Map(), remembered });
}

function hide(desc: DescMessage, message: Message): void {
  const hider = hiders.get(desc.typeName);
  if (!hider) throw new Error(`nothing hides the texts of ${desc.typeName}`);
  hider(message as never);
}

type Windows = ReadonlyMap<string, Awaited<ReturnType<typeof devicesOfWindows>>[number]>;

/** The devices of the windows in an answer, by run. */
async function findWindows(db: Db, orgId: string, found: readonly Found[]): Promise<Windows> {
  const windows = found.flatMap(({ desc, message }) =>
    desc.typeName === WindowSchema.typeName ? [message as Window] : [],
  );
  if (windows.length === 0) return new Map();
  const rows = await devicesOfWindows(db, { orgId, windows });
  return new Map(rows.map((row) => [row.runId, row]));
}

/** Reads the caller's standing on the devices that are not remembered yet. */
async function readStandings(
  { db, principal }: Ownership,
  found: readonly Found[],
  { ofWindows, remembered }: { ofWindows: Windows; remembered: Map<string, rights.Standing> },
): Promise<void> {
  const { orgId, userId, tokenId } = principal;
  const deviceIds = found.flatMap(({ desc, message }) => {
    const id = deviceOf(desc, message) || (ofWindows.get((message as Window).runId)?.deviceId ?? "");
    return id === "" || remembered.has(id) ? [] : [id];
  });
  const standings = await rights.standings(db, {
    ...{ orgId, who: { userId, tokenId } },
    deviceIds: [...new Set(deviceIds)],
  });
  for (const standing of standings) remembered.set(standing.deviceId, standing);
}

/**
 * Whether the caller may read a message's texts; adds the grant that allows it to `used`. Messages
 * of a fleet worker, or of no device yet, are readable.
 */
function isReadable(
  { desc, message }: Found,
  known: {
    ofWindows: Windows;
    remembered: ReadonlyMap<string, rights.Standing>;
    used: Set<string>;
  },
): boolean {
  const window =
    desc.typeName === WindowSchema.typeName ? known.ofWindows.get((message as Window).runId) : undefined;
  if (window && !window.isKnown) return false;
  const deviceId = window ? (window.deviceId ?? "") : deviceOf(desc, message);
  const standing = known.remembered.get(deviceId);
  if (!standing) return true;
  const right = rights.rightTo("read", standing);
  if (right !== null && typeof right === "object" && !right.isUsed) known.used.add(right.grantId);
  return right !== null;
}

/** The device id in the message itself; empty: none. */
function deviceOf(desc: DescMessage, message: Message): string {
  switch (desc.typeName) {
    case DeviceSchema.typeName:
      return (message as Device).id;
    case RunSchema.typeName:
    case RunQuestionSchema.typeName:
    case LateResultSchema.typeName:
    case PastAttemptSchema.typeName:
    case RunOutputSchema.typeName:
    case RunActivitySchema.typeName:
    case TurnSchema.typeName:
    case EventSchema.typeName:
      return (message as { deviceId: string } & Message).deviceId;
    default:
      return "";
  }
}

const permissions = {
  use: GrantPermission.USE,
  manage: GrantPermission.MANAGE,
  read: GrantPermission.READ,
} as const;

function allow(device: Device, standing: rights.Standing | undefined): void {
  device.allowed = (["use", "manage", "read"] as const)
    .filter((permission) => standing && rights.rightTo(permission, standing) !== null)
    .map((permission) => permissions[permission]);
}

function allowAll(device: Device): void {
  device.allowed = Object.values(permissions);
}
