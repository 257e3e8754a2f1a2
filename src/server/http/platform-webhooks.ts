/**
 * The endpoint of chat platforms: `POST /platforms/<org>/<platform>` (or `<cell>_<org>`), for platforms that send their
 * messages. The line of the platform verifies the request; the answer is sent after the message was
 * stored, so the platform repeats a message that was not. Any replica takes the request.
 */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import { within } from "../../abort.ts";
import { createBuckets, networkOf } from "../../buckets.ts";
import { Refusal } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { bodyBytesMax, readBody } from "./bodies.ts";
import type { Crowd } from "./crowd.ts";
import type { Handler } from "./port.ts";

/** Maximum requests from one network to one platform that are not verified, per minute. */
const refusedPerMinute = 60;
/** Milliseconds that taking a message in may take; the platform tries again. */
const takeMs = 15_000;

const path = /^\/platforms\/(?:[a-z][a-z0-9]{0,15}_)?([a-z0-9-]{1,100})\/([a-z0-9-]{1,100})(?:\?.*)?$/;

export type TakeWebhook = (
  platform: { orgId: string; stableId: string },
  request: Request,
) => Promise<Response | undefined>;

export function withPlatformWebhooks(
  next: Handler,
  options: {
    /** Undefined: no such platform runs, or its kind is asked for messages. */
    take: TakeWebhook;
    publicUrl: string | undefined;
    crowd?: Pick<Crowd, "find">;
    addressOf: (headers: IncomingHttpHeaders, remoteAddress: string | undefined) => string;
    log: Logger;
  },
): Handler {
  const refusals = createBuckets({
    perMs: refusedPerMinute / 60_000,
    burst: refusedPerMinute,
    keysMax: 20_000,
    now: () => performance.now(),
  });

  async function serve(
    request: IncomingMessage | Http2ServerRequest,
    platform: { orgId: string; stableId: string },
  ): Promise<Response> {
    const address = options.addressOf(request.headers, request.socket?.remoteAddress);
    const who = `${networkOf(address)} ${platform.orgId} ${platform.stableId}`;
    const waitMs = refusals.peek(who);
    if (waitMs > 0) return problem(429, "too many requests that were not verified", waitMs);
    const body = await readBody(request, options.crowd);
    if (!body) return problem(413, `a request has at most ${bodyBytesMax} bytes`);
    const isRead = request.method === "GET" || request.method === "HEAD";
    const asked = new Request(new URL(request.url ?? "/", options.publicUrl ?? "http://localhost"), {
      method: request.method ?? "POST",
      headers: headersOf(request.headers),
      ...(isRead ? {} : { body: new Uint8Array(body) }),
    });
    const answer = await within(
      options.take(platform, asked).then((taken) => taken ?? "none"),
      takeMs,
    );
    if (!answer) return problem(503, "it takes too long; try again later", 5_000);
    if (answer === "none") {
      refusals.take(who);
      return problem(404, "no such platform runs here that takes messages on this path");
    }
    if (answer.status === 401 || answer.status === 403) refusals.take(who);
    return answer;
  }

  return async (request, response) => {
    const [, orgId, stableId] = path.exec(request.url ?? "") ?? [];
    if (orgId === undefined || stableId === undefined) return next(request, response);
    let answer: Response;
    try {
      answer = await serve(request, { orgId, stableId });
    } catch (error) {
      const isFull = error instanceof Refusal && error.reason === "resource_exhausted";
      if (!isFull)
        options.log.warn({ err: error, orgId, platform: stableId }, "a platform's message was not taken in");
      answer = isFull
        ? problem(429, error.message, error.retryAfterMs ?? 1_000)
        : problem(503, "try again later", 5_000);
    }
    await send(response, answer);
  };
}

function problem(status: number, error: string, waitMs?: number): Response {
  return Response.json(
    { error },
    {
      status,
      ...(waitMs === undefined ? {} : { headers: { "retry-after": String(Math.ceil(waitMs / 1_000)) } }),
    },
  );
}

async function send(response: ServerResponse | Http2ServerResponse, answer: Response): Promise<void> {
  const body = Buffer.from(await answer.arrayBuffer());
  response.statusCode = answer.status;
  for (const [name, value] of answer.headers) {
    if (name === "content-type" || name === "retry-after") response.setHeader(name, value);
  }
  response.setHeader("cache-control", "no-store");
  response.end(body);
}

function headersOf(headers: IncomingHttpHeaders): [string, string][] {
  return Object.entries(headers).flatMap(([name, value]) =>
    value === undefined || name.startsWith(":")
      ? []
      : [[name, [value].flat().join(", ")] as [string, string]],
  );
}
