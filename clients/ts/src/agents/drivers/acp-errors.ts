import { RequestError } from "@agentclientprotocol/sdk";
import { AttentionReason } from "../../gen/pinion/v1/activity_pb.js";
import { retryAfterOf } from "../retry-later.ts";
import type { TurnEnd } from "./driver.ts";
import { numberAt, textAt } from "./lines.ts";

/** The session to resume could not be opened. */
export class SessionGone extends Error {}

/** The end of a turn by an error of the agent. */
export function failureOf(error: unknown): TurnEnd {
  const problem = wordsOf(error);
  const kind = error instanceof RequestError ? textAt(error.data, "errorKind") : undefined;
  const status =
    error instanceof RequestError
      ? numberAt(error.data, "codex_error_info", "response_too_many_failed_attempts", "http_status_code")
      : undefined;
  const text = kind === "rate_limit" ? `${problem} rate limit` : problem;
  // Some agents tell the time in the error's data alone.
  const data = error instanceof RequestError ? JSON.stringify(error.data ?? "").slice(0, 10_000) : "";
  const isLimit = retryAfterOf({ text, status }) !== undefined;
  const retryAfterMs = isLimit ? retryAfterOf({ text: `${text} ${data}`, status }) : undefined;
  return {
    isDone: false,
    text: "",
    stopReason: "error",
    attention: /refus|safeguards flagged/i.test(problem) ? [AttentionReason.REFUSAL] : [],
    problem,
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    ...(error instanceof SessionGone ? { isSessionGone: true } : {}),
  };
}

/** An error in words for people. */
export function wordsOf(error: unknown): string {
  if (error instanceof RequestError) {
    const said =
      textAt(error.data, "message") ??
      textAt(error.data, "details") ??
      (typeof error.data === "string" ? error.data : undefined);
    return said === undefined || error.message.includes(said) ? error.message : `${error.message}: ${said}`;
  }
  return error instanceof Error ? error.message : String(error);
}
