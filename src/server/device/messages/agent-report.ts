/** The part of a completion about the agent's work, for the store. */
import { create, toBinary, toJson } from "@bufbuild/protobuf";
import { AttentionReason, TranscriptSchema, type Usage } from "#gen/pinion/v1/activity_pb.js";
import { type Completion, CompletionSchema } from "#gen/pinion/v1/device_pb.js";
import type { Json } from "../../../store/pg/schema-columns.ts";
import type { AgentReport, UsageCounts } from "../../../store/work/runs/reports.ts";
import { attentionNames } from "../../enums.ts";

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
  const structured = readJson(completion.structured);
  const facts = factsOf(completion);
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

/** Parses a structured answer; undefined for text that is not JSON. */
function readJson(text: string): unknown {
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
