import type { Interceptor } from "@connectrpc/connect";
import { Refusal } from "../../errors.ts";
import { withinOrg } from "../../store/tenancy.ts";
import { type Guard, nameOf, setPrincipal } from "../guard.ts";

/** How often the token of an open server stream is looked at again; the guard's cache adds at most as much. */
const recheckMs = 5_000;

/**
 * Lets in what the guard admits, puts the principal into the call's context values, and confines what the handler does
 * in the database to the principal's org.
 *
 * A server stream outlives the moment in which it was admitted, so its token is looked at again while it is open, and
 * the stream ends with `unauthenticated` when the token does. The device's own stream is not meant: its session hears of
 * a revocation by itself.
 */
export function authInterceptor(options: { guard: Guard; recheckMs?: number }): Interceptor {
  const everyMs = options.recheckMs ?? recheckMs;
  return (next) => async (request) => {
    const rpc = nameOf(request.method);
    const authorization = request.header.get("authorization");
    const principal = await options.guard.admit(rpc, authorization);
    if (!principal) return next(request);
    setPrincipal(request.contextValues, principal);
    const response = await withinOrg(principal.orgId, () => next(request));
    if (!response.stream) return response;
    const message = confined(response.message, principal.orgId);
    if (request.method.methodKind !== "server_streaming") return { ...response, message };
    const recheck = () => options.guard.admit(rpc, authorization);
    return { ...response, message: whileAdmitted(message, { recheck, everyMs, signal: request.signal }) };
  };
}

/** A stream's handler runs when its messages are asked for, which is after the call of `next`. */
function confined<T>(source: AsyncIterable<T>, orgId: string): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]() {
      const inner = withinOrg(orgId, () => source[Symbol.asyncIterator]());
      return {
        next: () => withinOrg(orgId, () => inner.next()),
        ...(inner.return && {
          return: (value?: unknown) => withinOrg(orgId, () => inner.return!(value)),
        }),
        ...(inner.throw && {
          throw: (error?: unknown) => withinOrg(orgId, () => inner.throw!(error)),
        }),
      };
    },
  };
}

/** The messages until `recheck` refuses; then what it refused with. Other failures of `recheck` are passed over. */
function whileAdmitted<T>(
  source: AsyncIterable<T>,
  options: { recheck: () => Promise<unknown>; everyMs: number; signal: AbortSignal },
): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]() {
      const inner = source[Symbol.asyncIterator]();
      let refusal: Refusal | undefined;
      let reject: ((error: Refusal) => void) | undefined;
      const timer = setInterval(() => {
        options.recheck().catch((error: unknown) => {
          // A database that is away, for example, says nothing about the token.
          const isRefused =
            error instanceof Refusal &&
            (error.reason === "unauthenticated" || error.reason === "permission_denied");
          if (!isRefused) return;
          refusal = error;
          reject?.(error);
          stop();
        });
      }, options.everyMs).unref();
      const stop = () => {
        clearInterval(timer);
        options.signal.removeEventListener("abort", stop);
      };
      options.signal.addEventListener("abort", stop, { once: true });
      return {
        next: () =>
          new Promise<IteratorResult<T>>((resolve, fail) => {
            if (refusal) return fail(refusal);
            reject = fail;
            inner.next().then(
              (result) => {
                if (result.done) stop();
                resolve(result);
              },
              (error) => {
                stop();
                fail(error);
              },
            );
          }),
        return: (value?: unknown) => {
          stop();
          return inner.return?.(value) ?? Promise.resolve({ done: true, value });
        },
      };
    },
  };
}
