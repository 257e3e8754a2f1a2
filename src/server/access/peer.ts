/** Who is at the other end of a call: its address, what it says that it is, and the call's id. */

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
import { newId } from "../../ids.ts";
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
/** What a caller may choose as the id of its call: it stands in logs and events. */
const requestIdPattern = /^[A-Za-z0-9._:-]{1,100}$/;

/**
 * The address that a request comes from. `X-Forwarded-For` counts only behind so many trusted proxies, each of which
 * appends whom it heard: then it is the one that the outermost of them saw, and what a client wrote before it is passed over.
 */
export function addressOf(
  request: { remoteAddress: string | undefined; forwardedFor: string | undefined },
  trustedProxies: number,
): string {
  const heard = [
    normalize(request.remoteAddress ?? ""),
    ...(request.forwardedFor ?? "")
      .split(",")
      .map((part) => normalize(part.trim()))
      .filter((part) => part !== "")
      .toReversed(),
  ];
  const address = heard[Math.min(trustedProxies, heard.length - 1)]!;
  return isIP(address) ? address : heard[0]!;
}

/** IPv4 as such, also where it came over IPv6; without the port that some proxies add. */
function normalize(address: string): string {
  const bare = /^\[([^\]]+)\](?::\d+)?$/.exec(address)?.[1] ?? address.replace(/^([\d.]+):\d+$/, "$1");
  return bare.replace(/^::ffff:(?=\d+\.)/i, "");
}

/** The context values that a call begins with: Connect shows its handlers no connection. */
export function peerValues(
  request: IncomingMessage | Http2ServerRequest,
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

/** Cuts the call's stream, unless it has closed by itself by then: a peer that makes no room keeps it open for ever. */
export function cutLater(values: ContextValues, afterMs: number): void {
  values.get(cutKey)(afterMs);
}

/** As {@link addressOf}, from the headers of a request and the address at the other end of its connection. */
export function peerAddressOf(
  headers: IncomingHttpHeaders,
  remoteAddress: string | undefined,
  trustedProxies: number,
): string {
  const forwarded = headers["x-forwarded-for"];
  const forwardedFor = Array.isArray(forwarded) ? forwarded.join(",") : forwarded;
  return addressOf({ remoteAddress, forwardedFor }, trustedProxies);
}

/** Where a call within this process is for a peer: that one's address, as it was found at the port. */
export function setPeerAddress(values: ContextValues, address: string): void {
  values.set(addressKey, address);
}

/** The peer's IP address; empty if unknown. */
export function peerAddress(values: ContextValues): string {
  return values.get(addressKey);
}

/** By what name the server was reached. */
export function reachedOf(values: ContextValues): Reached {
  return values.get(reachedKey);
}

/** The call's id; see {@link requestIdInterceptor}. */
export function requestIdOf(values: ContextValues): string {
  return values.get(requestIdKey);
}

/** What the client says that it is, shortened, without what would disturb a terminal or a log. */
export function userAgentOf(userAgent: string | null | undefined): string {
  return (userAgent ?? "").replace(/[^\x20-\x7e]/g, "").slice(0, userAgentCharactersMax);
}

/** The id of a call: the one that the caller chose, if it is a good one, otherwise a new one. */
export function requestIdFrom(asked: string | null | undefined): string {
  return asked && requestIdPattern.test(asked) ? asked : newId();
}

/**
 * Gives each call an id: the caller's `x-request-id` if it is a good one, otherwise a new one. The answer has it in the
 * same header, refused or not. Outermost, so that the log knows it.
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
