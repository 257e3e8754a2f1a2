import type { Interceptor } from "@connectrpc/connect";
import { Refusal } from "../../errors.ts";
import { findPrincipal, type Guard, nameOf, rules } from "../guard.ts";
import type { Limits } from "../limits.ts";
import { peerAddress } from "../peer.ts";

/**
 * Before the guard: from an address whose tokens and join codes were often no good, none is looked up that this replica
 * has not known as a good one. Whoever holds a good token behind the same address goes on working with it.
 */
export function attemptInterceptor(options: { guard: Guard; limits: Limits }): Interceptor {
  const { guard, limits } = options;
  return (next) => async (request) => {
    const isAttempt = needsToken(nameOf(request.method))
      ? guard.isUnknown(request.header.get("authorization"))
      : request.method.name === "Enroll";
    if (!isAttempt) return next(request);
    const address = peerAddress(request.contextValues);
    limits.requireAttempt(address);
    try {
      return await next(request);
    } catch (error) {
      if (error instanceof Refusal && error.reason === "unauthenticated") limits.countFailure(address);
      throw error;
    }
  };
}

/** After the guard: counts the call for its token. */
export function requestInterceptor(options: { limits: Limits }): Interceptor {
  return (next) => (request) => {
    const principal = findPrincipal(request.contextValues);
    if (principal) options.limits.requireRequest(principal.tokenId);
    return next(request);
  };
}

function needsToken(rpc: string): boolean {
  return rules[rpc]?.needs !== "no token";
}
