/** What a completion says of an agent's work, for the store. */
import { create, toBinary, toJson } from "@bufbuild/protobuf";
import { AttentionReason, TranscriptSchema, type Usage } from "#gen/pinion/v1/activity_pb.js";
import { type Completion, CompletionSchema } from "#gen/pinion/v1/device_pb.js";
import type { Json } from "../../store/pg/schema.ts";
import type { AgentReport, UsageCounts } from "../../store/work/reports.ts";
import { attentionNames } from "../run-enums.ts";

/** Larger transcripts are cut by the device; what a device that does not cut sends beyond it is left out. */
export const transcriptBytesMax = 262_144;

/** The report of a completion; undefined: its executor tells nothing, as most commands do. */
export function agentReportOf(completion: Completion): AgentReport | undefined {
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

/** The fields that are only read again, as JSON of the message. */
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

/** Counts are summed over days: no attempt adds more than 10^12, which no agent uses and no sum overflows by. */
function count(value: bigint | undefined): number {
  const most = 1_000_000_000_000n;
  return value === undefined ? 0 : Number(value > most ? most : value);
}

/** A text that is no JSON is no structured answer. */
function readJson(text: string): unknown {
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
