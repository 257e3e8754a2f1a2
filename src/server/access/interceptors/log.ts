import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import type { Logger } from "../../../telemetry/log.ts";
import { isUuid } from "../../../values/ids.ts";
import { peerAddress, requestIdOf } from "../peer.ts";
import { findPrincipal } from "../principal.ts";
import { nameOf } from "../rules.ts";

/**
 * One line per unary call: rpc, code, milliseconds, org, actor, address, the call's id, and the ids
 * of the run, device or watcher in the request. Never another part of a message, never a header.
 * Placed outside of the error interceptor, so that the log has the caller's status.
 */
export function logInterceptor(options: {
  log: Logger;
  /** Reports each unary call. */
  onCall?: (rpc: string, code: string) => void;
}): Interceptor {
  return (next) => async (request) => {
    if (request.stream) return next(request);
    const startedAt = performance.now();
    let code = "ok";
    try {
      return await next(request);
    } catch (error) {
      code = Code[ConnectError.from(error).code] ?? "Unknown";
      throw error;
    } finally {
      const rpc = nameOf(request.method);
      options.onCall?.(rpc, code);
      const principal = findPrincipal(request.contextValues);
      options.log.info(
        {
          requestId: requestIdOf(request.contextValues),
          rpc,
          code,
          ms: Math.round((performance.now() - startedAt) * 10) / 10,
          orgId: principal?.orgId,
          actor: principal?.actor,
          address: peerAddress(request.contextValues),
          ...subjectsOf(request.message),
        },
        "call",
      );
    }
  };
}

/** The ids in a request that name its subjects. */
function subjectsOf(message: object): Record<string, string> {
  const named = message as Record<string, unknown>;
  return Object.fromEntries(
    ["runId", "deviceId", "watcherId"].flatMap((key) => {
      const value = named[key];
      return typeof value === "string" && isUuid(value) ? [[key, value]] : [];
    }),
  );
}
