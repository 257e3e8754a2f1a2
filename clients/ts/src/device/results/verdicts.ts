import { status } from "@grpc/grpc-js";
import { CompletionVerdict, type Incarnation } from "../../gen/pinion/v1/device_pb.js";
import type { Verdict } from "../events.ts";
import type { completeRun } from "../transport.ts";

/**
 * True if the server has not stored the result: the file is then set aside for a person, not
 * deleted.
 */
export const isNotStored = (verdict: Verdict) => verdict === "invalid" || verdict === "unknown";

export const verdicts: Record<CompletionVerdict, Verdict | undefined> = {
  // Verdict of a newer server: keep the completion and ask again.
  [CompletionVerdict.UNSPECIFIED]: undefined,
  [CompletionVerdict.STORED]: "stored",
  [CompletionVerdict.STORED_LATE]: "stored_late",
  [CompletionVerdict.ALREADY_STORED]: "already_stored",
  [CompletionVerdict.SUPERSEDED]: "superseded",
  [CompletionVerdict.UNKNOWN]: "unknown",
  [CompletionVerdict.INVALID]: "invalid",
};

/**
 * Statuses of the unary call with the meaning of a verdict. All other errors mean: try again later.
 */
const unaryVerdicts: Partial<Record<status, Verdict>> = {
  [status.NOT_FOUND]: "unknown",
  [status.INVALID_ARGUMENT]: "invalid",
};

/**
 * Meaning of the unary call's result. Without a verdict: `isReached` is false if the server could
 * not be reached.
 */
export function unaryMeaning(result: Awaited<ReturnType<typeof completeRun>>): {
  verdict: Verdict | undefined;
  told: { windowId: string; message: string; incarnation?: Incarnation | undefined };
  isReached: boolean;
} {
  if (result.kind === "answered") {
    return { verdict: verdicts[result.response.verdict], told: result.response, isReached: true };
  }
  // A worker's lost run needs a stream; other completions may go by unary call.
  const isReached = result.code === status.FAILED_PRECONDITION;
  return { verdict: unaryVerdicts[result.code], told: { windowId: "", message: result.details }, isReached };
}
