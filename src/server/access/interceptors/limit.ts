import type { Interceptor } from "@connectrpc/connect";
import { Refusal } from "../../../errors.ts";
import type { Guard } from "../guard.ts";
import type { Limits } from "../limits.ts";
import { peerAddress } from "../peer.ts";
import { findPrincipal, type Principal } from "../principal.ts";
import { nameOf, rules } from "../rules.ts";

/**
 * Runs before the guard: counts failed attempts. A token is looked up whatever its address did
 * before; after many failures the lookup waits in the slow queue, so a valid token is never refused
 * because of its neighbours. Join codes are short, so attempts with them are refused.
 */
export function attemptInterceptor(options: { guard: Guard; limits: Limits }): Interceptor {
  const { guard, limits } = options;
  return (next) => async (request) => {
    const address = peerAddress(request.contextValues);
    if (needsToken(nameOf(request.method))) {
      const authorization = request.header.get("authorization");
      if (guard.isUnknown(authorization)) await identify({ guard, limits }, { authorization, address });
      return next(request);
    }
    if (!guesses.has(request.method.name)) return next(request);
    limits.requireAttempt(address);
    try {
      return await next(request);
    } catch (error) {
      if (isFailedAttempt(error)) limits.countFailure(address);
      throw error;
    }
  };
}

/** Rpcs without a token whose request has a code that could be guessed. */
const guesses: ReadonlySet<string> = new Set(["Enroll", "SignIn", "FinishLogin"]);

/** The principal of an `authorization` header, by the guard; counts failures. */
export async function identify(
  { guard, limits }: { guard: Pick<Guard, "authenticate" | "isUnknown">; limits: Attempts },
  { authorization, address }: { authorization: string | null | undefined; address: string },
): Promise<Principal> {
  if (!guard.isUnknown(authorization)) return guard.authenticate(authorization);
  try {
    const isSuspect = limits.isSuspect(address, authorization);
    return await guard.authenticate(authorization, { isSuspect });
  } catch (error) {
    if (isFailedAttempt(error)) limits.countFailure(address, authorization);
    throw error;
  }
}

export type Attempts = Pick<Limits, "isSuspect" | "countFailure">;

/** The same checks for a device's stream without interceptors (device/stream/grpc-stream.ts). */
export async function admitStream(
  options: { guard: Guard; limits: Limits },
  call: { rpc: string; authorization: string | undefined; address: string },
): Promise<Principal> {
  await identify(options, call);
  const principal = await options.guard.admit(call.rpc, call.authorization);
  if (!principal) throw new Error(`${call.rpc} needs no token, and a stream needs one`);
  options.limits.requireRequest(principal.tokenId);
  return principal;
}

/** Runs after the guard: counts the call for its token. */
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
