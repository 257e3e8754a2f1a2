import type { Interceptor } from "@connectrpc/connect";
import { Refusal } from "../../../errors.ts";
import { onBehalfOf } from "../../../store/people/devices/rights.ts";
import { type Source, withinSource } from "../../../store/people/sources.ts";
import { withinOrg } from "../../../store/pg/tenancy.ts";
import { refusalOf } from "../../../store/work/service/org-moves.ts";
import type { Guard } from "../guard.ts";
import { peerAddress, requestIdOf, userAgentOf } from "../peer.ts";
import { setPrincipal } from "../principal.ts";
import { nameOf } from "../rules.ts";
import type { OpenStream, Streams } from "../streams.ts";

/**
 * Admits calls by the guard, puts the principal into the call's context values, and sets the
 * surroundings of the handler: the database confines statements to the principal's org, and events
 * record the source of the call.
 *
 * A server stream outlives its admission, so the stream ends with `unauthenticated` when its token
 * ends. The device's own stream is excepted: the hub ends its session.
 */
export function authInterceptor(options: { guard: Guard; streams: Streams }): Interceptor {
  return (next) => async (request) => {
    const principal = await options.guard.admit(nameOf(request.method), request.header.get("authorization"));
    const source: Source = {
      address: peerAddress(request.contextValues),
      tokenId: principal?.tokenId ?? "",
      userAgent: userAgentOf(request.header.get("user-agent")),
      requestId: requestIdOf(request.contextValues),
    };
    if (!principal) return withinSource(source, () => next(request));
    setPrincipal(request.contextValues, principal);
    const within: Within = (fn) =>
      onBehalfOf(principal, () => withinSource(source, () => withinOrg(principal.orgId, fn)));
    const response = await within(() => next(request));
    if (!response.stream) return response;
    const message = confined(response.message, within);
    if (request.method.methodKind !== "server_streaming") return { ...response, message };
    return { ...response, message: whileGood(message, { ...options, principal, signal: request.signal }) };
  };
}

type Within = <T>(fn: () => T) => T;

/**
 * Runs a stream's handler within the surroundings: the handler runs at each read of a message,
 * after `next` has returned.
 */
function confined<T>(source: AsyncIterable<T>, within: Within): AsyncIterable<T> {
  return {
    [Symbol.asyncIterator]() {
      const inner = within(() => source[Symbol.asyncIterator]());
      const end = inner.return?.bind(inner);
      const fail = inner.throw?.bind(inner);
      return {
        next: () => within(() => inner.next()),
        ...(end && { return: (value?: unknown) => within(() => end(value)) }),
        ...(fail && { throw: (error?: unknown) => within(() => fail(error)) }),
      };
    },
  };
}

/**
 * The messages for as long as the principal's token is good; then `unauthenticated`, and the
 * handler is left.
 */
function whileGood<T>(
  source: AsyncIterable<T>,
  options: { streams: Streams; principal: { orgId: string; tokenId: string }; signal: AbortSignal },
): AsyncIterable<T> {
  const { orgId, tokenId } = options.principal;
  return {
    [Symbol.asyncIterator]() {
      const inner = source[Symbol.asyncIterator]();
      let refusal: Refusal | undefined;
      let reject: ((error: Refusal) => void) | undefined;
      const open: OpenStream = {
        orgId,
        tokenId,
        end(leaving) {
          refusal = leaving
            ? refusalOf(leaving)
            : new Refusal("unauthenticated", "the token was revoked or has expired");
          stop();
          reject?.(refusal);
          // Releases the handler's resources. No caller waits for the handler or its result.
          inner.return?.().catch(() => {});
        },
      };
      options.streams.add(open);
      const stop = () => {
        options.streams.remove(open);
        options.signal.removeEventListener("abort", stop);
      };
      options.signal.addEventListener("abort", stop, { once: true });
      if (options.signal.aborted) stop();
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
