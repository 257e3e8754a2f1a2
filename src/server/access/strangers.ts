/**
 * Bodies of those who are not known. A body is read before its call reaches the guard, so whoever comes without a good
 * token is heard only a little: enough to enrol, to ask after health and to be told what is wrong.
 */

import { constants, type Http2ServerRequest } from "node:http2";
import { setImmediate as immediate } from "node:timers/promises";
import { Refusal } from "../../errors.ts";
import { isGone } from "../http/adapter.ts";
import type { Handler } from "../http/port.ts";
import type { Guard } from "./guard.ts";
import type { Limits } from "./limits.ts";
import { peerAddressOf } from "./peer.ts";

/** Many times an Enroll, the largest message that needs no token. */
export const strangerBytesMax = 65_536;

/**
 * Looks at a request's token before anything of its body is read: `known` serves those with a good one, `stranger` all
 * others. While the database is away nobody is a stranger: a device must hear that, and not that its result is too long.
 */
export function sortStrangers(options: {
  guard: Pick<Guard, "authenticate" | "isUnknown">;
  limits: Pick<Limits, "requireAttempt">;
  trustedProxies: number;
  known: Handler;
  stranger: Handler;
}): Handler {
  const { guard, limits, known, stranger } = options;
  return async (request, response) => {
    endWithAnswer(request);
    const address = peerAddressOf(request.headers, request.socket?.remoteAddress, options.trustedProxies);
    const handler = await judge(request.headers.authorization, address);
    // A peer that resets its streams as soon as they are open does so within a turn, and costs no call.
    await immediate();
    if (!isGone(request)) await handler(request, response);
  };

  async function judge(authorization: string | undefined, address: string): Promise<Handler> {
    if (authorization === undefined) return stranger;
    try {
      // Whose tokens were often no good is refused by the interceptors; nothing is looked up for it here either.
      if (guard.isUnknown(authorization)) limits.requireAttempt(address);
      await guard.authenticate(authorization);
    } catch (error) {
      if (error instanceof Refusal && error.reason !== "unavailable") return stranger;
    }
    return known;
  }
}

/** An HTTP/2 request that was answered before all of it came is over: what still comes would be kept for nobody. */
function endWithAnswer(request: Parameters<Handler>[0]): void {
  if (request.httpVersionMajor !== 2) return;
  const { stream } = request as Http2ServerRequest;
  stream.once("wantTrailers", () => {
    if (stream.state.remoteClose) return;
    // A reset in the same turn would overtake the trailers.
    setImmediate(() => {
      if (!stream.destroyed) stream.close(constants.NGHTTP2_NO_ERROR);
    });
  });
}
