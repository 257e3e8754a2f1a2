/**
 * The frames of the messages of every run, written without message objects: the assignment of a run
 * that asks nothing unusual of its device, and the acknowledgement of a completion. Any other
 * message is left to protobuf-es (messages.ts). `test/unit/server/device/plain-frames.test.ts`
 * compares both ways.
 *
 * Below, the writer: the fields of a message in the order of their numbers, as protobuf-es encodes
 * them. All messages share one buffer, so a message is written in one go, without waiting in
 * between.
 */
import { fromJson, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { AgentSettingsSchema } from "#gen/pinion/v1/agent_pb.js";
import { AssignmentKind } from "#gen/pinion/v1/device_pb.js";
import type { ReportVerdict } from "../../../scheduler/endings/endings.ts";
import type { Incarnation } from "../../../store/pg/incarnation.ts";
import type { ClaimedRun } from "../../../store/work/runs/run-claims.ts";
import { conversationOfRun } from "../../../values/conversation-ids.ts";
import { notificationOf, sourceOf } from "../../enums.ts";
import { agentTokenOf } from "./messages.ts";
import { verdictOf, verdictText } from "./reports.ts";

const assignmentField = 3;
const completionAckField = 5;

/** The frame of messages.assignmentOf; undefined for a run with an unusual wish, left to it. */
export function plainAssignmentFrame(run: ClaimedRun, traceparent: string, cell: string): Buffer | undefined {
  if (!isPlain(run)) return undefined;
  const settings = settingsBytes(run.agentSettings as JsonObject);
  const workspace = (run.agentSettings as { workspace?: string }).workspace ?? "";
  const agentToken = agentTokenOf(run, cell);
  return frameOf(() => {
    writeMessage(assignmentField, () => {
      writeText(1, run.runId);
      writeText(2, run.attemptToken);
      writeNumber(3, run.attempt);
      writeNumber(4, AssignmentKind.WATCHER_RUN);
      writeText(5, run.agentKind);
      writeDuration(6, run.timeoutMs);
      writeNumber(7, notificationOf(run.notification));
      writeMessage(8, () => writeAgent(run, settings));
      writeMessage(9, () => writeWatcher(run));
      writeMessage(10, () => writeEvent(run));
      writeMessage(11, () => writeContext(run));
      writeText(12, traceparent);
      writeText(14, workspace);
      writeText(18, agentToken);
    });
  });
}

function isPlain(run: ClaimedRun): boolean {
  const { priorWindow, scheduledFor } = run;
  return (
    run.input === null &&
    !run.extractionSchema &&
    run.agentSession === null &&
    isEmpty(run.agentWork) &&
    (priorWindow === null || priorWindow.structured === null) &&
    // Before 1970 numbers are negative.
    run.windowStart.getTime() >= 0 &&
    (scheduledFor === null || scheduledFor.getTime() >= 0) &&
    (priorWindow === null || Date.parse(priorWindow.window_start) >= 0)
  );
}

function isEmpty(json: unknown): boolean {
  for (const _ in json as object) return false;
  return true;
}

const noBytes = new Uint8Array();

/** Settings as the store keeps them: the message's JSON. */
function settingsBytes(settings: JsonObject): Uint8Array {
  if (isEmpty(settings)) return noBytes;
  return toBinary(
    AgentSettingsSchema,
    fromJson(AgentSettingsSchema, settings, { ignoreUnknownFields: true }),
  );
}

function writeAgent(run: ClaimedRun, settings: Uint8Array): void {
  writeText(1, run.agentId);
  writeText(2, run.agentName ?? "");
  writeNumber(3, run.agentVersion);
  writeEncoded(4, settings);
}

function writeWatcher(run: ClaimedRun): void {
  writeText(1, run.watcherId);
  writeText(2, run.watcherSlug ?? "");
  writeText(3, run.watcherName ?? "");
  writeNumber(4, run.watcherVersion);
  writeText(5, run.prompt ?? "");
}

function writeEvent(run: ClaimedRun): void {
  writeTimestamp(1, run.dueAt.getTime());
  writeNumber(2, sourceOf(run.source));
  if (run.scheduledFor) writeTimestamp(3, run.scheduledFor.getTime());
  writeTimestamp(4, run.windowStart.getTime());
  writeTimestamp(5, run.windowEnd.getTime());
}

function writeContext(run: ClaimedRun): void {
  const { priorWindow } = run;
  writeText(1, run.deviceId);
  writeText(2, conversationOfRun(run));
  if (!priorWindow) return;
  writeMessage(3, () => {
    writeText(1, priorWindow.id);
    writeText(2, run.watcherId);
    writeText(3, priorWindow.run_id);
    writeTimestamp(4, Date.parse(priorWindow.window_start));
    writeTimestamp(5, Date.parse(priorWindow.window_end));
    writeText(6, priorWindow.model_used);
    writeMessage(7, () => {
      writeEntry("kind", priorWindow.kind);
      writeEntry("output", priorWindow.output);
    });
    writeTimestamp(8, Date.parse(priorWindow.created_at));
  });
}

/** An entry of a google.protobuf.Struct with a text. */
function writeEntry(key: string, value: string): void {
  writeMessage(1, () => {
    writePresentText(1, key);
    writeMessage(2, () => writePresentText(3, value));
  });
}

/** The frame of messages.completionAckOf. */
export function completionAckFrame(
  { workId, attemptToken }: { workId: string; attemptToken: string },
  stored: ReportVerdict,
  incarnation: Incarnation | undefined,
): Buffer {
  return frameOf(() => {
    writeMessage(completionAckField, () => {
      writeText(1, workId);
      writeText(2, attemptToken);
      writeNumber(3, verdictOf[stored.verdict]);
      writeText(4, stored.windowId ?? "");
      writeText(5, verdictText[stored.verdict]);
      if (!incarnation) return;
      writeMessage(6, () => {
        writeText(1, incarnation.systemIdentifier);
        writeNumber(2, incarnation.timeline);
        writeText(3, incarnation.position);
        writeText(4, incarnation.safePosition ?? "");
      });
    });
  });
}

/** The wire type of texts and messages; numbers have wire type 0. */
const lengthDelimited = 2;
/** gRPC's prefix: a byte of flags, and four of length. */
const prefixBytes = 5;
/** A varint of a number below 2^53. */
const varintBytesMax = 8;
const oneByteMax = 0x7f;

let buffer = Buffer.allocUnsafe(16_384);
let at = 0;

/** The frame of the message that `write` writes: the message with gRPC's prefix. */
export function frameOf(write: () => void): Buffer {
  at = prefixBytes;
  write();
  buffer[0] = 0;
  buffer.writeUInt32BE(at - prefixBytes, 1);
  return Buffer.from(buffer.subarray(0, at));
}

/** A text; an empty one is left out. */
export function writeText(field: number, value: string): void {
  if (value !== "") writePresentText(field, value);
}

/** A text of a `oneof` or a map: written also if it is empty. */
function writePresentText(field: number, value: string): void {
  // A UTF-16 unit is three bytes of UTF-8 at most.
  reserve(3 * value.length + 2 * varintBytesMax);
  tag(field, lengthDelimited);
  if (3 * value.length <= oneByteMax) {
    const length = buffer.write(value, at + 1);
    buffer[at] = length;
    at += 1 + length;
    return;
  }
  varint(Buffer.byteLength(value));
  at += buffer.write(value, at);
}

/** A number from 0 to 2^53, or an enum; 0 is left out. */
function writeNumber(field: number, value: number): void {
  if (value === 0) return;
  reserve(2 * varintBytesMax);
  tag(field, 0);
  varint(value);
}

/** A message that is encoded already. */
function writeEncoded(field: number, bytes: Uint8Array): void {
  reserve(bytes.length + 2 * varintBytesMax);
  tag(field, lengthDelimited);
  varint(bytes.length);
  buffer.set(bytes, at);
  at += bytes.length;
}

/** A message whose fields `write` writes. */
function writeMessage(field: number, write: () => void): void {
  reserve(2 * varintBytesMax);
  tag(field, lengthDelimited);
  const lengthAt = at++;
  write();
  const length = at - lengthAt - 1;
  if (length <= oneByteMax) {
    buffer[lengthAt] = length;
    return;
  }
  // The length takes more bytes than were left for it: the message moves on.
  reserve(varintBytesMax);
  const end = at;
  at = lengthAt;
  const more = varintBytes(length) - 1;
  buffer.copyWithin(lengthAt + 1 + more, lengthAt + 1, end);
  varint(length);
  at = end + more;
}

/** A google.protobuf.Timestamp of milliseconds since 1970, not before. */
function writeTimestamp(field: number, ms: number): void {
  writeMessage(field, () => secondsAndNanos(ms));
}

/** A google.protobuf.Duration of milliseconds, not negative. */
function writeDuration(field: number, ms: number): void {
  writeMessage(field, () => secondsAndNanos(ms));
}

function secondsAndNanos(ms: number): void {
  const seconds = Math.floor(ms / 1_000);
  writeNumber(1, seconds);
  writeNumber(2, (ms - seconds * 1_000) * 1_000_000);
}

function tag(field: number, wireType: number): void {
  varint(field * 8 + wireType);
}

function varint(value: number): void {
  let rest = value;
  while (rest > oneByteMax) {
    buffer[at++] = (rest % 0x80) | 0x80;
    rest = Math.floor(rest / 0x80);
  }
  buffer[at++] = rest;
}

function varintBytes(value: number): number {
  let count = 1;
  for (let rest = value; rest > oneByteMax; rest = Math.floor(rest / 0x80)) count++;
  return count;
}

/** Makes room for more bytes. */
function reserve(bytes: number): void {
  if (at + bytes <= buffer.length) return;
  const larger = Buffer.allocUnsafe(Math.max(2 * buffer.length, at + bytes));
  buffer.copy(larger, 0, 0, at);
  buffer = larger;
}
