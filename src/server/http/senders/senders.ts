/**
 * Requests of other systems without a token: deliveries to hooks, and messages of chat platforms.
 * Each endpoint verifies a request by its own means, after the body was read. Requests of one
 * network to one target that were not verified are limited.
 */
import type { IncomingHttpHeaders, IncomingMessage } from "node:http";
import type { Http2ServerRequest } from "node:http2";
import { Refusal } from "../../../errors.ts";
import { createBuckets, networkOf } from "../crowd/buckets.ts";
import type { Crowd } from "../crowd/crowd.ts";
import { bodyBytesMax, readBody } from "./bodies.ts";

export type SenderOptions = {
  crowd?: Pick<Crowd, "find">;
  /** The address a request comes from. */
  addressOf: (headers: IncomingHttpHeaders, remoteAddress: string | undefined) => string;
};

/** Why a request is not taken; `waitMs`: the sender may try again after these milliseconds. */
export type Problem = { status: number; error: string; waitMs?: number };

/** A request with its body. */
export type Sent = {
  body: Buffer;
  /** Counts the request as not verified. */
  noteUnverified(): void;
};

export type Senders = {
  /** Reads the body, if the sender may still make unverified requests to the target. */
  admit(request: IncomingMessage | Http2ServerRequest, target: string): Promise<Sent | Problem>;
};

/** `noun`: how a refusal calls requests, such as `{ one: "a delivery", many: "deliveries" }`. */
export function createSenders(
  { crowd, addressOf }: SenderOptions,
  { refusedPerMinute, noun }: { refusedPerMinute: number; noun: { one: string; many: string } },
): Senders {
  const refusals = createBuckets({
    perMs: refusedPerMinute / 60_000,
    burst: refusedPerMinute,
    keysMax: 20_000,
    now: () => performance.now(),
  });
  return {
    async admit(request, target) {
      const address = addressOf(request.headers, request.socket?.remoteAddress);
      const who = `${networkOf(address)} ${target}`;
      const waitMs = refusals.peek(who);
      if (waitMs > 0) return { status: 429, error: `too many ${noun.many} that were not verified`, waitMs };
      const body = await readBody(request, crowd);
      if (!body) return { status: 413, error: `${noun.one} has at most ${bodyBytesMax} bytes` };
      return { body, noteUnverified: () => void refusals.take(who) };
    },
  };
}

/** The answer to a request that failed: the sender tries again. */
export function failedProblem(error: unknown): Problem {
  if (error instanceof Refusal && error.reason === "resource_exhausted")
    return { status: 429, error: error.message, waitMs: error.retryAfterMs ?? 1_000 };
  return { status: 503, error: "try again later", waitMs: 5_000 };
}

/** The seconds of a `retry-after` header. */
export const retryAfterOf = (waitMs: number): string => String(Math.ceil(waitMs / 1_000));
