import type { Interceptor } from "@connectrpc/connect";
import { Refusal } from "../../../errors.ts";
import { findPrincipal, type Guard, nameOf, type Principal, rules } from "../guard.ts";
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
      if (isFailedAttempt(error)) limits.countFailure(address);
      throw error;
    }
  };
}

/** The same door for a device's stream that comes without interceptors (device/grpc-stream.ts). */
export async function admitStream(
  options: { guard: Guard; limits: Limits },
  call: { rpc: string; authorization: string | undefined; address: string },
): Promise<Principal> {
  const { guard, limits } = options;
  const isAttempt = guard.isUnknown(call.authorization);
  if (isAttempt) limits.requireAttempt(call.address);
  try {
    const principal = (await guard.admit(call.rpc, call.authorization))!;
    limits.requireRequest(principal.tokenId);
    return principal;
  } catch (error) {
    if (isAttempt && isFailedAttempt(error)) limits.countFailure(call.address);
    throw error;
  }
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

function isFailedAttempt(error: unknown): boolean {
  return error instanceof Refusal && error.reason === "unauthenticated";
}
