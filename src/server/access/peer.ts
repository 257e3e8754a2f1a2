/** The peer of a call: its address, its user agent, and the call's id. */

import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import { constants, type Http2ServerRequest, type ServerHttp2Stream } from "node:http2";
import { isIP } from "node:net";
import {
  ConnectError,
  type ContextValues,
  createContextKey,
  createContextValues,
  type Interceptor,
} from "@connectrpc/connect";
import { newId } from "../../values/ids.ts";
import { type Reached, reachedBy } from "./cookies.ts";

const addressKey = createContextKey("", { description: "peer address" });
const cutKey = createContextKey<(afterMs: number) => void>(() => {}, { description: "cut the stream" });
const reachedKey = createContextKey<Reached>(
  { authority: "", isSecure: false },
  { description: "by what name the server was reached" },
);
const requestIdKey = createContextKey("", { description: "request id" });

const userAgentCharactersMax = 200;
export const requestIdHeader = "x-request-id";
/** Characters allowed in a caller's own call id, which appears in logs and events. */
const requestIdPattern = /^[A-Za-z0-9._:-]{1,100}$/;

/**
 * The address a request comes from. `X-Forwarded-For` counts only behind the given number of
 * trusted proxies, each of which appends the address of its peer: the result is the address seen by
 * the outermost proxy, and earlier entries, written by the client, are ignored.
 */
export function addressOf(
  request: { remoteAddress: string | undefined; forwardedFor: string | undefined },
  trustedProxies: number,
): string {
  const peer = normalize(request.remoteAddress ?? "");
  const heard = [
    peer,
    ...(request.forwardedFor ?? "")
      .split(",")
      .map((part) => normalize(part.trim()))
      .filter((part) => part !== "")
      .toReversed(),
  ];
  const address = heard[trustedProxies] ?? heard.at(-1) ?? peer;
  return isIP(address) ? address : peer;
}

/**
 * The bare address: IPv4 in its own form, also from IPv4 over IPv6, and without the port that some
 * proxies add.
 */
function normalize(address: string): string {
  const bare = /^\[([^\]]+)\](?::\d+)?$/.exec(address)?.[1] ?? address.replace(/^([\d.]+):\d+$/, "$1");
  return bare.replace(/^::ffff:(?=\d+\.)/i, "");
}

/** What is read of a request: its headers, its connection, and its stream over HTTP/2. */
export type Request =
  | Pick<IncomingMessage, "headers" | "socket">
  | Pick<Http2ServerRequest, "headers" | "socket" | "stream">;

/** The initial context values of a call: Connect gives its handlers no connection. */
export function peerValues(
  request: Request,
  { trustedProxies, publicUrl }: { trustedProxies: number; publicUrl: string | undefined },
): ContextValues {
  const address = peerAddressOf(request.headers, request.socket?.remoteAddress, trustedProxies);
  const values = createContextValues()
    .set(addressKey, address)
    .set(reachedKey, reachedBy(request, publicUrl));
  return "stream" in request ? values.set(cutKey, (afterMs) => cutStream(request.stream, afterMs)) : values;
}

function cutStream(stream: ServerHttp2Stream, afterMs: number): void {
  if (stream.destroyed) return;
  const timer = setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), afterMs);
  stream.once("close", () => clearTimeout(timer));
}

/**
 * Cuts the call's stream after `afterMs` milliseconds if still open: a peer that does not read
 * keeps a stream open for ever.
 */
export function cutLater(values: ContextValues, afterMs: number): void {
  values.get(cutKey)(afterMs);
}

/** Like {@link addressOf}, from a request's headers and the remote address of its connection. */
export function peerAddressOf(
  headers: IncomingHttpHeaders,
  remoteAddress: string | undefined,
  trustedProxies: number,
): string {
  const forwarded = headers["x-forwarded-for"];
  const forwardedFor = Array.isArray(forwarded) ? forwarded.join(",") : forwarded;
  return addressOf({ remoteAddress, forwardedFor }, trustedProxies);
}

/**
 * Sets the peer address of a call made within the process for a peer: the address found at the
 * port.
 */
export function setPeerAddress(values: ContextValues, address: string): void {
  values.set(addressKey, address);
}

/** The peer's IP address; empty if unknown. */
export function peerAddress(values: ContextValues): string {
  return values.get(addressKey);
}

/** The authority by which the server was reached. */
export function reachedOf(values: ContextValues): Reached {
  return values.get(reachedKey);
}

/** The call's id; see {@link requestIdInterceptor}. */
export function requestIdOf(values: ContextValues): string {
  return values.get(requestIdKey);
}

/**
 * The client's user agent, shortened, printable ASCII only, so that terminals and logs stay intact.
 */
export function userAgentOf(userAgent: string | null | undefined): string {
  return (userAgent ?? "").replace(/[^\x20-\x7e]/g, "").slice(0, userAgentCharactersMax);
}

/** The id of a call: the caller's own if valid, otherwise a new id. */
export function requestIdFrom(asked: string | null | undefined): string {
  return asked && requestIdPattern.test(asked) ? asked : newId();
}

/**
 * Gives each call an id: the caller's `x-request-id` if valid, otherwise a new id. Every answer,
 * also a refusal, has the id in the same header. Outermost, so that the log has the id.
 */
export function requestIdInterceptor(): Interceptor {
  return (next) => async (request) => {
    const requestId = requestIdFrom(request.header.get(requestIdHeader));
    request.contextValues.set(requestIdKey, requestId);
    try {
      const response = await next(request);
      response.header.set(requestIdHeader, requestId);
      return response;
    } catch (error) {
      const status = ConnectError.from(error);
      status.metadata.set(requestIdHeader, requestId);
      throw status;
    }
  };
}
