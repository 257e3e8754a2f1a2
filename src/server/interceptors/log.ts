import { Code, ConnectError, type Interceptor } from "@connectrpc/connect";
import type { Logger } from "../../log.ts";
import { findPrincipal, nameOf } from "../guard.ts";
import { peerAddress, requestIdOf } from "../peer.ts";

/**
 * One line per unary call: rpc, code, milliseconds, org, actor, address and the call's id. Never a message, never a header. Stands outside of
 * the error interceptor, so that it sees the status that the caller sees.
 */
export function logInterceptor(options: { log: Logger }): Interceptor {
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
      const principal = findPrincipal(request.contextValues);
      options.log.info(
        {
          rpc: nameOf(request.method),
          code,
          ms: Math.round((performance.now() - startedAt) * 10) / 10,
          org: principal?.orgId,
          actor: principal?.actor,
          address: peerAddress(request.contextValues),
          requestId: requestIdOf(request.contextValues),
        },
        "call",
      );
    }
  };
}
