import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  AttentionReason,
  type Denial,
  type ExecutorInfo,
  type KeptWorkspace,
  type Transcript,
  type Usage,
} from "../../gen/pinion/v1/activity_pb.js";
import { type Completion, CompletionSchema, Outcome } from "../../gen/pinion/v1/device_pb.js";
import { cutMiddle } from "../../kept-output.ts";
import type { SessionLimits } from "../timing.ts";

/** A handler's report about an attempt. All fields except the outcome are optional. */
export interface AttemptResult {
  outcome: "completed" | "failed" | "timeout" | "cancelled";
  /** Output of the program; cut to the server's limit. */
  output?: string;
  /** The handler itself cut the output. */
  isOutputTruncated?: boolean;
  exitCode?: number;
  /** For example "SIGKILL". */
  signal?: string;
  /** Reason of a failure, for people; cut to 4,000 bytes. */
  reason?: string;
  /**
   * For a turn: snapshot given to the conversation's next turn; at most 1 MiB. Left out: the old
   * snapshot stays.
   */
  nextSnapshot?: Uint8Array;
  /** Left out: measured from the start of the handler. */
  durationMs?: number;
  /** The agent's final answer, without its other output; cut to 256 KiB. */
  resultText?: string;
  /** The answer as data of the requested schema; left out if the JSON is larger than 256 KiB. */
  structured?: unknown;
  usage?: Usage;
  /** The agent's own session id. */
  sessionId?: string;
  /** Model of the answer. */
  modelUsed?: string;
  /** The agent's own stop reason. */
  stopReason?: string;
  denials?: Denial[];
  attention?: AttentionReason[];
  /** The agent's activities, within the protocol's bounds. */
  transcript?: Transcript;
  /** With a failure: delay in ms before another attempt, not counted as a retry. */
  retryAfterMs?: number;
  executor?: ExecutorInfo;
  keptWorkspace?: KeptWorkspace;
  /** The device's notes about the attempt. */
  notes?: string[];
  /** End of the program's standard error. */
  stderrTail?: string;
}

const outcomes: Record<AttemptResult["outcome"], Outcome> = {
  completed: Outcome.COMPLETED,
  failed: Outcome.FAILED,
  timeout: Outcome.TIMEOUT,
  cancelled: Outcome.CANCELLED,
};

/** True if a handler (perhaps an untyped one) returned a known outcome. */
export function isResult(value: unknown): value is AttemptResult {
  return (
    typeof value === "object" && value !== null && "outcome" in value && String(value.outcome) in outcomes
  );
}

/** Limits of the protocol's field rules, in bytes. */
const REASON_BYTES_MAX = 4_000;
const SIGNAL_BYTES_MAX = 32;
const STDERR_BYTES_MAX = 8_192;
const RESULT_BYTES_MAX = 262_144;
const NOTES_MAX = 16;
const NOTE_BYTES_MAX = 500;
const ATTENTION_MAX = 16;
const DENIALS_MAX = 32;
const RETRY_AFTER_MS_MAX = 7 * 24 * 3_600_000;
/** Room in bytes for all fields of a message except the output: ids, reason, framing. */
const MESSAGE_OVERHEAD_BYTES = 8 * 1024;

/** Builds the completion of a result and brings every field within the protocol's rules. */
export function completionOf(
  attempt: { workId: string; attemptToken: string },
  result: AttemptResult,
  measuredMs: number,
): Completion {
  return create(CompletionSchema, {
    workId: attempt.workId,
    attemptToken: attempt.attemptToken,
    outcome: outcomes[result.outcome] ?? Outcome.FAILED,
    output: (result.output ?? "").toWellFormed(),
    isOutputTruncated: result.isOutputTruncated ?? false,
    // Windows has exit codes beyond 2^31; the field is a signed 32-bit number.
    ...(finite(result.exitCode) === undefined ? {} : { exitCode: Math.trunc(result.exitCode ?? 0) | 0 }),
    ...(result.nextSnapshot === undefined ? {} : { nextSnapshot: result.nextSnapshot }),
    signal: truncateUtf8(result.signal ?? "", SIGNAL_BYTES_MAX).text,
    reason: truncateUtf8((result.reason ?? "").toWellFormed(), REASON_BYTES_MAX).text,
    duration: durationFromMs(Math.max(0, Math.round(finite(result.durationMs) ?? measuredMs))),
    stderrTail: tailUtf8((result.stderrTail ?? "").toWellFormed(), STDERR_BYTES_MAX),
    ...Object.assign(laterPart(result), agentPart(result)),
  });
}

function laterPart(result: AttemptResult): MessageInitShape<typeof CompletionSchema> {
  const ms = finite(result.retryAfterMs);
  if (ms === undefined || result.outcome !== "failed") return {};
  return { retryAfter: durationFromMs(Math.min(RETRY_AFTER_MS_MAX, Math.max(0, Math.round(ms)))) };
}

/** Fields reported only by executors with knowledge of their agent. */
function agentPart(result: AttemptResult): MessageInitShape<typeof CompletionSchema> {
  const cut = (text: string | undefined, bytesMax: number) =>
    truncateUtf8((text ?? "").toWellFormed(), bytesMax).text;
  const answer = truncateUtf8((result.resultText ?? "").toWellFormed(), RESULT_BYTES_MAX);
  const structured = result.structured === undefined ? "" : JSON.stringify(result.structured);
  return {
    resultText: answer.text,
    isResultTruncated: answer.isTruncated,
    structured: Buffer.byteLength(structured) > RESULT_BYTES_MAX ? "" : structured.toWellFormed(),
    sessionId: cut(result.sessionId, 200),
    modelUsed: cut(result.modelUsed, 200),
    stopReason: cut(result.stopReason, 64),
    denials: (result.denials ?? []).slice(0, DENIALS_MAX),
    attention: [
      // First, so the cut below never drops the reason.
      ...new Set([...(answer.isTruncated ? [AttentionReason.ANSWER_CUT] : []), ...(result.attention ?? [])]),
    ].slice(0, ATTENTION_MAX),
    notes: (result.notes ?? []).slice(0, NOTES_MAX).map((note) => cut(note, NOTE_BYTES_MAX)),
    ...(result.usage === undefined ? {} : { usage: result.usage }),
    ...(result.transcript === undefined ? {} : { transcript: result.transcript }),
    ...(result.executor === undefined ? {} : { executor: result.executor }),
    ...(result.keptWorkspace === undefined ? {} : { keptWorkspace: result.keptWorkspace }),
  };
}

function finite(value: number | undefined): number | undefined {
  return Number.isFinite(value) ? value : undefined;
}

/**
 * Cuts the completion to the session's limits. A message that is too large would end the stream at
 * every try.
 */
export function fitCompletion(completion: Completion, limits: SessionLimits): Completion {
  const { nextSnapshot, ...rest } = completion;
  // Counted without the output, usually the largest part.
  const restBytes =
    MESSAGE_OVERHEAD_BYTES +
    (nextSnapshot?.length ?? 0) +
    toBinary(CompletionSchema, create(CompletionSchema, { ...rest, output: "" })).length;
  if (completion.transcript !== undefined && restBytes > limits.messageBytesMax) {
    return fitCompletion(withoutTranscript(completion), limits);
  }
  if (nextSnapshot !== undefined && restBytes > limits.messageBytesMax) {
    // Without the snapshot the conversation's next turn would not know this reply.
    const reason = `its snapshot of ${nextSnapshot.length} bytes is larger than what this server takes`;
    return fitCompletion(create(CompletionSchema, { ...rest, outcome: Outcome.FAILED, reason }), limits);
  }
  const outputBytesMax = Math.max(
    0,
    Math.min(limits.completionOutputBytesMax, limits.messageBytesMax - restBytes),
  );
  const { text, isCut } = cutMiddle(completion.output, outputBytesMax, {
    isCut: completion.isOutputTruncated,
  });
  if (!isCut) return completion;
  return create(CompletionSchema, { ...completion, output: text, isOutputTruncated: true });
}

/** The result matters more than the transcript. */
function withoutTranscript({ transcript: _, ...rest }: Completion): Completion {
  return create(CompletionSchema, rest);
}

/** The longest suffix of whole characters with at most `bytesMax` bytes of UTF-8. */
function tailUtf8(text: string, bytesMax: number): string {
  const bytes = Buffer.from(text);
  if (bytes.length <= bytesMax) return text;
  let start = bytes.length - bytesMax;
  while (((bytes[start] ?? 0) & 0xc0) === 0x80) start += 1;
  return bytes.toString("utf8", start);
}

/** The longest prefix of whole characters with at most `bytesMax` bytes of UTF-8. */
export function truncateUtf8(text: string, bytesMax: number): { text: string; isTruncated: boolean } {
  // A UTF-16 unit is at most 3 bytes of UTF-8: most texts need no counting.
  if (text.length * 3 <= bytesMax) return { text, isTruncated: false };
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length <= bytesMax) return { text, isTruncated: false };
  return { text: bytes.toString("utf8", 0, utf8Boundary(bytes, bytesMax)), isTruncated: true };
}

/** The last offset at or before `end` where a cut splits no character. */
function utf8Boundary(bytes: Uint8Array, end: number): number {
  let cut = Math.min(end, bytes.length);
  if (cut === bytes.length) return cut;
  // Continuation bytes are 10xxxxxx; a character has at most three of them.
  for (let steps = 0; steps < 3 && cut > 0 && ((bytes[cut] ?? 0) & 0xc0) === 0x80; steps++) cut -= 1;
  return cut;
}
