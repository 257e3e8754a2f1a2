import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { clone, type Message } from "@bufbuild/protobuf";
import { Code, type Interceptor } from "@connectrpc/connect";
import { isRetryable, pinionErrorOf } from "./errors.ts";

const ATTEMPTS_MAX = 3;
/** Before the second attempt, in ms; doubles. With full jitter, so that many callers do not come back at once. */
const BACKOFF_MS = 250;

/**
 * Repeats a write that creates when its answer was lost. Such a request has a `request_id`, which is chosen here if the caller
 * has not, so that what the first attempt made is not made twice. Of a secret that it made, the repeat says so
 * (`already_exists`): it was shown once.
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

/** Nobody answered. What a server said with a reason of its own (too much, too late) is the caller's to judge. */
function isLost(error: unknown): boolean {
  const { code, retryAfterMs } = pinionErrorOf(error);
  return (
    isRetryable(error) && (code === Code.Unavailable || code === Code.Internal) && retryAfterMs === undefined
  );
}
