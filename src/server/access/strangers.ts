/**
 * Bodies of unknown callers. A body is read before its call reaches the guard, so a caller without
 * a valid token may send only a small body: enough to enrol, to check health and to receive errors.
 * The call starts only after the whole body has arrived.
 */
import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest, ServerHttp2Stream } from "node:http2";
import { setImmediate as immediate } from "node:timers/promises";
import { Refusal } from "../../errors.ts";
import type { Crowd } from "../http/crowd/crowd.ts";
import type { Visit } from "../http/crowd/visit.ts";
import { isGone } from "../http/port/adapter.ts";
import type { Handler } from "../http/port/requests.ts";
import type { Guard } from "./guard.ts";
import { type Attempts, identify } from "./interceptors/limit.ts";
import { peerAddressOf } from "./peer.ts";

/** Bytes. Many times the size of an Enroll, the largest message without a token. */
export const strangerBytesMax = 65_536;

/**
 * Checks a request's token before its body is read: `known` serves requests with a valid token,
 * `stranger` all others. While the database is away every request with a token counts as known, so
 * that a device learns of the outage and not of a result that is too long.
 */
export function sortStrangers(options: {
  guard: Pick<Guard, "authenticate" | "isUnknown">;
  limits: Attempts;
  trustedProxies: number;
  crowd?: Pick<Crowd, "find">;
  /** Whether the path is an rpc whose messages arrive until the call ends. */
  isStream: (path: string) => boolean;
  known: Handler;
  stranger: Handler;
}): Handler {
  const { known, stranger } = options;
  return async (request, response) => {
    const body = request.httpVersionMajor === 2 ? (request as Http2ServerRequest).stream : request;
    const visit = options.crowd?.find(body as ServerHttp2Stream | IncomingMessage);
    const address = peerAddressOf(request.headers, request.socket?.remoteAddress, options.trustedProxies);
    const handler = await judge(request.headers.authorization, address, visit);
    if (handler === stranger) {
      visit?.judgeStranger();
      const path = request.url?.split("?", 1)[0] ?? "";
      if (visit && !options.isStream(path)) await whole(body as ServerHttp2Stream | IncomingMessage, visit);
    }
    // A peer that resets its streams right after opening does so within a turn, and the call is not
    // started.
    await immediate();
    if (!isGone(request)) await handler(request, response);
  };

  async function judge(
    authorization: string | undefined,
    address: string,
    visit: Visit | undefined,
  ): Promise<Handler> {
    if (authorization === undefined) return stranger;
    try {
      const principal = await identify(options, { authorization, address });
      visit?.recognise(principal.tokenId);
    } catch (error) {
      if (error instanceof Refusal && error.reason !== "unavailable") return stranger;
    }
    return known;
  }
}

/**
 * Waits until a body is complete, exceeds the limit for strangers, or its sender is gone. Consumes
 * nothing of the body.
 */
async function whole(body: ServerHttp2Stream | IncomingMessage, visit: Visit): Promise<void> {
  if (visit.isWhole) return;
  await new Promise<void>((resolve) => {
    const done = () => {
      body.off("readable", lookSoon);
      body.off("close", done);
      resolve();
    };
    const look = () => {
      const { readableLength } = body;
      visit.holdAtLeast(readableLength);
      if (body.destroyed || hasCome(body) || readableLength >= strangerBytesMax) done();
      // Asks to be told of more.
      else body.read(0);
    };
    // During the event the stream does not yet know its end, so the check runs afterwards.
    const lookSoon = () => void setImmediate(look);
    body.on("readable", lookSoon);
    body.once("close", done);
    // An empty body is complete already, and no event follows.
    if (hasCome(body)) done();
  });
  if (hasCome(body)) visit.whole();
}

function hasCome(body: ServerHttp2Stream | IncomingMessage): boolean {
  return "complete" in body ? body.complete : Boolean(body.state.remoteClose);
}
