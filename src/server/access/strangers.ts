/**
 * Bodies of those who are not known. A body is read before its call reaches the guard, so whoever comes without a good
 * token is heard only a little: enough to enrol, to ask after health and to be told what is wrong. Nothing is made of such a
 * call until all of it has come.
 */
import type { IncomingMessage } from "node:http";
import type { Http2ServerRequest, ServerHttp2Stream } from "node:http2";
import { setImmediate as immediate } from "node:timers/promises";
import { Refusal } from "../../errors.ts";
import { isGone } from "../http/adapter.ts";
import type { Crowd, Visit } from "../http/crowd.ts";
import type { Handler } from "../http/port.ts";
import type { Guard } from "./guard.ts";
import { type Attempts, identify } from "./interceptors/limit.ts";
import { peerAddressOf } from "./peer.ts";

/** Many times an Enroll, the largest message that needs no token. */
export const strangerBytesMax = 65_536;

/**
 * Looks at a request's token before anything of its body is read: `known` serves those with a good one, `stranger` all
 * others. While the database is away nobody is a stranger: a device must hear that, and not that its result is too long.
 */
export function sortStrangers(options: {
  guard: Pick<Guard, "authenticate" | "isUnknown">;
  limits: Attempts;
  trustedProxies: number;
  crowd?: Pick<Crowd, "find">;
  /** Whose messages come for as long as the call lasts. */
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
    // A peer that resets its streams as soon as they are open does so within a turn, and costs no call.
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

/** Waits until a body has come, is longer than a stranger's may be, or its sender is gone. Takes nothing of it. */
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
    // While the event is told, the stream does not know yet that this was the end.
    const lookSoon = () => void setImmediate(look);
    body.on("readable", lookSoon);
    body.once("close", done);
    // An empty body has come, and nothing more is told of it.
    if (hasCome(body)) done();
  });
  if (hasCome(body)) visit.whole();
}

function hasCome(body: ServerHttp2Stream | IncomingMessage): boolean {
  return "complete" in body ? body.complete : Boolean(body.state.remoteClose);
}
