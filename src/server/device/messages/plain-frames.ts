/**
 * The frames of the messages of every run, written without message objects: the assignment of a run
 * that asks nothing unusual of its device, and the acknowledgement of a completion. Any other
 * message is left to protobuf-es (messages.ts). `test/unit/server/plain-frames.test.ts` compares
 * both ways.
 */
import { fromJson, type JsonObject, toBinary } from "@bufbuild/protobuf";
import { AgentSettingsSchema } from "#gen/pinion/v1/agent_pb.js";
import { AssignmentKind } from "#gen/pinion/v1/device_pb.js";
import { conversationOfRun } from "../../../conversation-ids.ts";
import type { ReportVerdict } from "../../../scheduler/endings/endings.ts";
import type { Incarnation } from "../../../store/pg/incarnation.ts";
import type { ClaimedRun } from "../../../store/work/runs/run-claims.ts";
import { notificationOf, sourceOf } from "../../enums.ts";
import * as writer from "./message-writer.ts";
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
  return writer.frameOf(() => {
    writer.message(assignmentField, () => {
      writer.text(1, run.runId);
      writer.text(2, run.attemptToken);
      writer.number(3, run.attempt);
      writer.number(4, AssignmentKind.WATCHER_RUN);
      writer.text(5, run.agentKind);
      writer.duration(6, run.timeoutMs);
      writer.number(7, notificationOf(run.notification));
      writer.message(8, () => writeAgent(run, settings));
      writer.message(9, () => writeWatcher(run));
      writer.message(10, () => writeEvent(run));
      writer.message(11, () => writeContext(run));
      writer.text(12, traceparent);
      writer.text(14, workspace);
      writer.text(18, agentToken);
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
  writer.text(1, run.agentId);
  writer.text(2, run.agentName ?? "");
  writer.number(3, run.agentVersion);
  writer.encoded(4, settings);
}

function writeWatcher(run: ClaimedRun): void {
  writer.text(1, run.watcherId);
  writer.text(2, run.watcherSlug ?? "");
  writer.text(3, run.watcherName ?? "");
  writer.number(4, run.watcherVersion);
  writer.text(5, run.prompt ?? "");
}

function writeEvent(run: ClaimedRun): void {
  writer.timestamp(1, run.dueAt.getTime());
  writer.number(2, sourceOf(run.source));
  if (run.scheduledFor) writer.timestamp(3, run.scheduledFor.getTime());
  writer.timestamp(4, run.windowStart.getTime());
  writer.timestamp(5, run.windowEnd.getTime());
}

function writeContext(run: ClaimedRun): void {
  const { priorWindow } = run;
  writer.text(1, run.deviceId);
  writer.text(2, conversationOfRun(run));
  if (!priorWindow) return;
  writer.message(3, () => {
    writer.text(1, priorWindow.id);
    writer.text(2, run.watcherId);
    writer.text(3, priorWindow.run_id);
    writer.timestamp(4, Date.parse(priorWindow.window_start));
    writer.timestamp(5, Date.parse(priorWindow.window_end));
    writer.text(6, priorWindow.model_used);
    writer.message(7, () => {
      writeEntry("kind", priorWindow.kind);
      writeEntry("output", priorWindow.output);
    });
    writer.timestamp(8, Date.parse(priorWindow.created_at));
  });
}

/** An entry of a google.protobuf.Struct with a text. */
function writeEntry(key: string, value: string): void {
  writer.message(1, () => {
    writer.presentText(1, key);
    writer.message(2, () => writer.presentText(3, value));
  });
}

/** The frame of messages.completionAckOf. */
export function completionAckFrame(
  { workId, attemptToken }: { workId: string; attemptToken: string },
  stored: ReportVerdict,
  incarnation: Incarnation | undefined,
): Buffer {
  return writer.frameOf(() => {
    writer.message(completionAckField, () => {
      writer.text(1, workId);
      writer.text(2, attemptToken);
      writer.number(3, verdictOf[stored.verdict]);
      writer.text(4, stored.windowId ?? "");
      writer.text(5, verdictText[stored.verdict]);
      if (!incarnation) return;
      writer.message(6, () => {
        writer.text(1, incarnation.systemIdentifier);
        writer.number(2, incarnation.timeline);
        writer.text(3, incarnation.position);
        writer.text(4, incarnation.safePosition ?? "");
      });
    });
  });
}
