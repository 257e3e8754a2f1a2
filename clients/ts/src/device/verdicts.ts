import { status } from "@grpc/grpc-js";
import { CompletionVerdict } from "../gen/pinion/v1/device_pb.js";
import type { Verdict } from "./events.ts";

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
export const unaryVerdicts: Partial<Record<status, Verdict>> = {
  [status.NOT_FOUND]: "unknown",
  [status.INVALID_ARGUMENT]: "invalid",
};
