import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { clone, type Message } from "@bufbuild/protobuf";
import { Code, type Interceptor } from "@connectrpc/connect";
import { isRetryable, pinionErrorOf } from "./errors.ts";

const ATTEMPTS_MAX = 3;
/**
 * Delay in ms before the second attempt; doubles. With full jitter, so callers do not return
 * together.
 */
const BACKOFF_MS = 250;

/**
 * Repeats a creating write whose answer was lost. Such a request has a `request_id` (chosen here if
 * the caller gave none), so the repeat creates nothing twice. If the first attempt created a
 * secret, the repeat fails with `already_exists`: a secret is shown once.
 */
export const repeatLost: Interceptor = (next) => async (request) => {
  if (request.stream || !request.method.input.fields.some((field) => field.localName === "requestId")) {
    return next(request);
  }
  const message = clone(request.method.input, request.message) as Message & { requestId: string };
  message.requestId ||= randomUUID();
  for (let attempt = 1; ; attempt++) {
    try {
      return await next({ ...request, message });
    } catch (error) {
      if (attempt >= ATTEMPTS_MAX || request.signal.aborted || !isLost(error)) throw error;
      await sleep(Math.random() * BACKOFF_MS * 2 ** (attempt - 1));
    }
  }
};

/** True if no answer arrived. A server's own reason with a delay is for the caller to handle. */
function isLost(error: unknown): boolean {
  const { code, retryAfterMs } = pinionErrorOf(error);
  return (
    isRetryable(error) && (code === Code.Unavailable || code === Code.Internal) && retryAfterMs === undefined
  );
}
