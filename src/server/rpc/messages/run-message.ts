import { create, fromJson, type JsonObject, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromDate, type Value, ValueSchema } from "@bufbuild/protobuf/wkt";
import { type Completion, CompletionSchema } from "#gen/pinion/v1/device_pb.js";
import {
  type LateResult,
  LateResultSchema,
  type Run,
  RunSchema,
  type RunSummary,
  RunSummarySchema,
  SkipReason,
  type Window,
  WindowSchema,
} from "#gen/pinion/v1/run_pb.js";
import type { LateResultRow } from "../../../store/work/attempts/late-results.ts";
import type { ReportRow } from "../../../store/work/runs/reports.ts";
import type * as runSummaries from "../../../store/work/runs/run-summaries.ts";
import type { RunRow } from "../../../store/work/runs/runs.ts";
import type { WindowRow } from "../../../store/work/runs/windows.ts";
import { isShallow } from "../../../values/json.ts";
import { attentionOf, notificationOf, runStatuses, skipReasons, sourceOf } from "../../enums.ts";
import { type ShownStart, startFields } from "./input-message.ts";

/** Runs and windows as messages. */

/** A timestamp field, absent without a time. */
function at<Name extends string>(name: Name, moment: Date | string | null) {
  return moment === null
    ? {}
    : ({ [name]: timestampFromDate(new Date(moment)) } as Record<Name, ReturnType<typeof timestampFromDate>>);
}

/** A run and, if requested, its agent's report and the number of its open questions. */
export function runMessage(
  row: RunRow,
  about: { report?: ReportRow | undefined; openQuestions?: number; start?: ShownStart | undefined } = {},
): Run {
  const init: MessageInitShape<typeof RunSchema> = {
    id: row.id,
    watcherId: row.watcherId,
    watcherSlug: row.watcherSlug ?? "",
    watcherVersion: row.watcherVersion,
    agentId: row.agentId,
    agentVersion: row.agentVersion,
    deviceId: row.deviceId ?? "",
    agentKind: row.agentKind,
    workspace: row.workspace,
    status: runStatuses[row.status],
    skipReason: row.skipReason ? skipReasons[row.skipReason] : SkipReason.UNSPECIFIED,
    source: sourceOf(row.source),
    attempt: row.attempt,
    maxAttempts: row.maxAttempts,
    timeout: durationFromMs(row.timeoutMs),
    reason: row.reason,
    ...(row.exitCode === null ? {} : { exitCode: row.exitCode }),
    signal: row.signal,
    ...(row.durationMs === null ? {} : { duration: durationFromMs(row.durationMs) }),
    outputTail: row.outputTail,
    windowId: row.windowId ?? "",
    retryOf: row.retryOf ?? "",
    notification: notificationOf(row.notification),
    pastAttempts: row.pastAttempts.map((past) => ({
      attempt: past.attempt,
      ...at("claimedAt", past.claimed_at),
      ...at("endedAt", past.ended_at),
      ...at("lastBeatAt", past.last_beat_at),
      reason: past.reason,
      isReported: past.is_reported,
      deviceId: past.device_id ?? row.deviceId ?? "",
      outputTail: past.output_tail ?? "",
    })),
    isReported: row.isReported,
    ...at("scheduledFor", row.scheduledFor),
    ...at("windowStart", row.windowStart),
    ...at("windowEnd", row.windowEnd),
    ...at("dueAt", row.dueAt),
    ...at("createdAt", row.createdAt),
    ...at("notBefore", row.notBefore),
    ...at("expiresAt", row.startDeadlineAt),
    ...at("claimedAt", row.claimedAt),
    ...at("pushedAt", row.pushedAt),
    ...at("startedAt", row.startedAt),
    ...at("lastBeatAt", row.lastBeatAt),
    ...at("cancelRequestedAt", row.cancelRequestedAt),
    ...at("finishedAt", row.finishedAt),
    openQuestions: about.openQuestions ?? 0,
    ...(about.report ? reportFields(about.report) : {}),
    ...(about.start ? startFields(about.start) : {}),
  };
  return create(RunSchema, init);
}

export function lateResultMessage(row: LateResultRow): LateResult {
  return create(LateResultSchema, {
    attempt: row.attempt,
    deviceId: row.deviceId,
    outcome: runStatuses[row.outcome],
    hasSettled: row.hasSettled,
    output: row.output,
    isOutputTruncated: row.isOutputTruncated,
    ...(row.exitCode === null ? {} : { exitCode: row.exitCode }),
    signal: row.signal,
    reason: row.reason,
    ...(row.durationMs === null ? {} : { duration: durationFromMs(row.durationMs) }),
    result: row.answer.result ?? "",
    ...structuredOf(row.answer.structured),
    ...at("storedAt", row.storedAt),
  });
}

/** The fields of a run filled from its agent's report. */
function reportFields({
  attention,
  sessionId,
  facts,
  hasTranscript,
  result,
}: ReportRow): MessageInitShape<typeof RunSchema> {
  const told = factsOf(facts);
  const { usage, executor, keptWorkspace } = told;
  return {
    attention: attentionOf(attention),
    sessionId,
    hasTranscript,
    result,
    ...{ modelUsed: told.modelUsed, stopReason: told.stopReason, denials: told.denials, notes: told.notes },
    stderrTail: told.stderrTail,
    ...(usage ? { usage } : {}),
    ...(executor ? { executor } : {}),
    ...(keptWorkspace ? { keptWorkspace } : {}),
  };
}

/** Facts as stored. Fields of a newer version are ignored. */
function factsOf(facts: unknown): Completion {
  return fromJson(CompletionSchema, facts as JsonObject, { ignoreUnknownFields: true });
}

export function runSummaryMessage(row: runSummaries.RunSummary): RunSummary {
  return create(RunSummarySchema, {
    id: row.id,
    watcherId: row.watcherId,
    status: runStatuses[row.status],
    skipReason: row.skipReason ? skipReasons[row.skipReason] : SkipReason.UNSPECIFIED,
    ...(row.durationMs === null ? {} : { duration: durationFromMs(row.durationMs) }),
    ...at("dueAt", row.dueAt),
    ...at("startedAt", row.startedAt),
    ...at("finishedAt", row.finishedAt),
  });
}

export function windowMessage(row: WindowRow, report?: ReportRow): Window {
  const { result, structured, agent_kind: agentKind } = row.extractedData;
  const usage = report && factsOf(report.facts).usage;
  return create(WindowSchema, {
    result: typeof result === "string" ? result : "",
    ...structuredOf(structured),
    agentKind: typeof agentKind === "string" ? agentKind : "",
    ...(usage ? { usage } : {}),
    attention: attentionOf(report?.attention ?? []),
    id: row.id,
    watcherId: row.watcherId,
    runId: row.runId,
    modelUsed: row.modelUsed,
    extractedData: row.extractedData as JsonObject,
    ...at("windowStart", row.windowStart),
    ...at("windowEnd", row.windowEnd),
    ...at("createdAt", row.createdAt),
  });
}

/** An answer that is too deep for a message, as older versions stored some, is left out. */
function structuredOf(value: unknown): { structured?: Value } {
  if (value === undefined || !isShallow(value as JsonValue)) return {};
  return { structured: fromJson(ValueSchema, value as JsonValue) };
}
