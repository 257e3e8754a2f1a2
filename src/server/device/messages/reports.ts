/**
 * What a device says of its attempts, for the scheduler: ids in lower case, the report of an end,
 * the agent's report of its work, and the verdicts that answer them. messages.ts has the way back.
 */
import { create, toBinary, toJson } from "@bufbuild/protobuf";
import { durationMs } from "@bufbuild/protobuf/wkt";
import { AttentionReason, TranscriptSchema, type Usage } from "#gen/pinion/v1/activity_pb.js";
import {
  type Completion,
  CompletionSchema,
  CompletionVerdict,
  type ConnectRequest,
  Outcome,
} from "#gen/pinion/v1/device_pb.js";
import type { Report, ReportVerdict } from "../../../scheduler/endings/endings.ts";
import type { Json } from "../../../store/pg/schema/schema-columns.ts";
import { storableText } from "../../../store/pg/values/storable.ts";
import type { AgentReport, UsageCounts } from "../../../store/work/runs/reports.ts";
import { inputDepthMax, isShallow, type JsonValue } from "../../../values/json.ts";
import { attentionNames } from "../../enums.ts";
import { lengthMs } from "./moments.ts";

type AttemptNamed = { workId: string; attemptToken: string };

/** Some languages write UUIDs in capitals; here they are compared as the database writes them. */
export function normalizeNames(request: ConnectRequest): void {
  const { message } = request;
  if (message.case === "hello") message.value.held.forEach(normalizeName);
  else if (message.case === "heartbeat") message.value.attempts.forEach(normalizeName);
  else if (message.case === "logExcerpt") message.value.requestId = message.value.requestId.toLowerCase();
  else if (message.case) normalizeName(message.value);
}

export function normalizeName(name: AttemptNamed): void {
  name.workId = name.workId.toLowerCase();
  name.attemptToken = name.attemptToken.toLowerCase();
}

const statusOf: Record<Outcome, Report["status"]> = {
  // Refused earlier, by the rules of the message.
  [Outcome.UNSPECIFIED]: "failed",
  [Outcome.COMPLETED]: "completed",
  [Outcome.FAILED]: "failed",
  [Outcome.TIMEOUT]: "timeout",
  [Outcome.CANCELLED]: "cancelled",
};

/**
 * A device's report, under the identity of its token (R6). `accepting`: the times of an accept that
 * may not be in the database yet, by the monotonic clock. `workId`: the work, where the device's
 * name of it is not the database's.
 */
export function reportOf(
  device: { orgId: string; deviceId: string },
  completion: Completion,
  accepting?: { pushedAt: number; acceptedAt: number },
  workId = completion.workId,
): Report {
  const report: Report = {
    orgId: device.orgId,
    deviceId: device.deviceId,
    workId,
    attemptToken: completion.attemptToken,
    status: statusOf[completion.outcome],
    output: completion.output,
    isOutputTruncated: completion.isOutputTruncated,
    exitCode: completion.exitCode,
    signal: completion.signal,
    reason: completion.reason,
    durationMs: lengthMs(completion.duration),
    nextSnapshot: completion.nextSnapshot,
    agent: agentReportOf(completion),
  };
  if (completion.retryAfter) report.laterMs = durationMs(completion.retryAfter);
  if (accepting) {
    report.pushedAt = accepting.pushedAt;
    report.startedAt = accepting.acceptedAt;
  }
  return report;
}

/** The end of an attempt after a requested cancel. */
export function cancelledReportOf(
  device: { orgId: string; deviceId: string },
  attempt: { workId: string; attemptToken: string },
): Report {
  return {
    orgId: device.orgId,
    deviceId: device.deviceId,
    workId: attempt.workId,
    attemptToken: attempt.attemptToken,
    status: "cancelled",
    output: "",
    isOutputTruncated: false,
    exitCode: undefined,
    signal: "",
    // The store fills in why the cancellation was asked for.
    reason: "",
    durationMs: undefined,
  };
}

export const verdictOf: Record<ReportVerdict["verdict"], CompletionVerdict> = {
  stored: CompletionVerdict.STORED,
  stored_late: CompletionVerdict.STORED_LATE,
  already_stored: CompletionVerdict.ALREADY_STORED,
  superseded: CompletionVerdict.SUPERSEDED,
  unknown: CompletionVerdict.UNKNOWN,
};

/** Texts for people who read a device's log. */
export const verdictText: Record<ReportVerdict["verdict"], string> = {
  stored: "",
  already_stored: "stored before",
  stored_late: "it came late, and is the run's end after all",
  superseded: "the run has ended without this attempt, or another attempt owns it; kept as a late result",
  unknown: "no such attempt of this device",
};

/**
 * Maximum characters, from its end, of an output that cannot be stored as sent, shown with the run.
 */
const invalidTailMax = 8_000;

/** The settlement of an attempt whose completion can never be stored. */
export function invalidEndOf(completion: Completion, why: string) {
  return {
    action: "finish",
    status: "failed",
    reason: `the device's result is invalid, and is set aside there: ${why}`,
    output: storableText(completion.output.slice(-invalidTailMax).toWellFormed()),
    isOutputTruncated: true,
  } as const;
}

/**
 * Bytes. Devices cut larger transcripts; a larger transcript of a device that does not cut is left
 * out.
 */
export const transcriptBytesMax = 262_144;

/** Whether a completion has no field for the agent's work, as of most commands. */
export function reportsNothing(completion: Completion): boolean {
  const { resultText, structured, sessionId, modelUsed, stopReason, stderrTail } = completion;
  return (
    (resultText || structured || sessionId || modelUsed || stopReason || stderrTail) === "" &&
    !completion.isResultTruncated &&
    completion.attention.length === 0 &&
    completion.denials.length === 0 &&
    completion.notes.length === 0 &&
    !completion.usage &&
    !completion.transcript &&
    !completion.executor &&
    !completion.keptWorkspace
  );
}

/** The report of a completion; undefined if its executor reports nothing, as most commands do. */
export function agentReportOf(completion: Completion): AgentReport | undefined {
  if (reportsNothing(completion)) return undefined;
  const { resultText, sessionId, transcript, attention } = completion;
  const read = readJson(completion.structured);
  const isDeep = read !== undefined && !isShallow(read);
  const structured = isDeep ? undefined : read;
  const facts = factsOf(isDeep ? { ...completion, notes: [...completion.notes, deepNote] } : completion);
  const isEmpty =
    resultText === "" &&
    structured === undefined &&
    sessionId === "" &&
    attention.length === 0 &&
    !transcript &&
    Object.keys(facts).length === 0;
  if (isEmpty) return undefined;
  const reasons = new Set(attention);
  if (completion.denials.length > 0) reasons.add(AttentionReason.PERMISSION_DENIED);
  const bytes = transcript && toBinary(TranscriptSchema, transcript);
  return {
    result: resultText,
    structured,
    attention: [...reasons].flatMap((reason) => attentionNames[reason] ?? []),
    sessionId,
    facts,
    usage: completion.usage && countsOf(completion.usage),
    transcript: bytes && bytes.length <= transcriptBytesMax ? bytes : undefined,
  };
}

/** The fields that the store never interprets, as JSON of the message. */
function factsOf(completion: Completion): Json {
  const { usage, modelUsed, stopReason, denials, executor, keptWorkspace, notes, isResultTruncated } =
    completion;
  const told = create(CompletionSchema, {
    ...{ modelUsed, stopReason, denials, notes, isResultTruncated, stderrTail: completion.stderrTail },
    ...(usage ? { usage } : {}),
    ...(executor ? { executor } : {}),
    ...(keptWorkspace ? { keptWorkspace } : {}),
  });
  return toJson(CompletionSchema, told) as Json;
}

function countsOf(usage: Usage): UsageCounts {
  const hasCost = usage.costMicros !== undefined && (usage.currency === "" || usage.currency === "USD");
  return {
    inputTokens: count(usage.inputTokens),
    outputTokens: count(usage.outputTokens),
    cachedInputTokens: count(usage.cachedInputTokens),
    costMicros: hasCost ? count(usage.costMicros) : undefined,
  };
}

/**
 * Counts are summed over days, so each attempt adds at most 10^12: above any real use, and sums
 * cannot overflow.
 */
function count(value: bigint | undefined): number {
  const most = 1_000_000_000_000n;
  return value === undefined ? 0 : Number(value > most ? most : value);
}

/** A deeper answer could be stored by nobody, or be read by no client. */
const deepNote = `The structured answer is nested more than ${inputDepthMax} deep, and was left out.`;

/** Parses a structured answer; undefined for text that is not JSON. */
function readJson(text: string): JsonValue | undefined {
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
