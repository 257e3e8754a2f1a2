import { randomUUID } from "node:crypto";
import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import { isUuid } from "../../ids.ts";
import type { Logger } from "../../log.ts";
import { findPrincipal, nameOf } from "../guard.ts";

const requestIdHeader = "x-request-id";
/** What a proxy in front may call a request; anything else is not repeated in a log. */
const requestIdPattern = /^[\w.:-]{1,64}$/;

/**
 * One line per unary call: request id, rpc, code, milliseconds, org, actor, and the run, device or watcher that it is
 * about. Never another part of a message, never a header. The request id is the caller's `x-request-id` or a new one, and
 * goes back with the answer. Stands outside of the error interceptor, so that it sees the status that the caller sees.
 */
export function logInterceptor(options: {
  log: Logger;
  /** Told of each unary call. */
  onCall?: (rpc: string, code: string) => void;
}): Interceptor {
  return (next) => async (request) => {
    if (request.stream) return next(request);
    const given = request.header.get(requestIdHeader) ?? "";
    const requestId = requestIdPattern.test(given) ? given : randomUUID();
    const startedAt = performance.now();
    let code = "ok";
    try {
      const response = await next(request);
      response.header.set(requestIdHeader, requestId);
      return response;
    } catch (error) {
      const answer = ConnectError.from(error);
      code = Code[answer.code] ?? "Unknown";
      answer.metadata.set(requestIdHeader, requestId);
      throw answer;
    } finally {
      const rpc = nameOf(request.method);
      options.onCall?.(rpc, code);
      const principal = findPrincipal(request.contextValues);
      options.log.info(
        {
          requestId,
          rpc,
          code,
          ms: Math.round((performance.now() - startedAt) * 10) / 10,
          orgId: principal?.orgId,
          actor: principal?.actor,
          ...subjectsOf(request.message),
        },
        "call",
      );
    }
  };
}

/** The ids in a request that say what it is about. */
function subjectsOf(message: object): Record<string, string> {
  const named = message as Record<string, unknown>;
  return Object.fromEntries(
    ["runId", "deviceId", "watcherId"].flatMap((key) => {
      const value = named[key];
      return typeof value === "string" && isUuid(value) ? [[key, value]] : [];
    }),
  );
}
