/**
 * The endpoint of chat platforms: `POST /platforms/<org>/<platform>` (or `<cell>_<org>`), for
 * platforms that send their messages. The line of the platform verifies the request; the answer is
 * sent after the message was stored, so the platform repeats a message that was not. Any replica
 * takes the request.
 */
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import type { Logger } from "../../../telemetry/log.ts";
import { within } from "../../../time/abort.ts";
import type { Handler } from "../port/requests.ts";
import {
  createSenders,
  failedProblem,
  type Problem,
  retryAfterOf,
  type SenderOptions,
  type Senders,
} from "./senders.ts";

/** Maximum requests from one network to one platform that are not verified, per minute. */
const refusedPerMinute = 60;
/** Milliseconds that taking a message in may take; the platform tries again. */
const takeMs = 15_000;

const path = /^\/platforms\/(?:[a-z][a-z0-9]{0,15}_)?([a-z0-9-]{1,100})\/([a-z0-9-]{1,100})(?:\?.*)?$/;

export type TakeWebhook = (
  platform: { orgId: string; stableId: string },
  request: Request,
) => Promise<Response | undefined>;

type WebhookOptions = SenderOptions & {
  /** Undefined: no such platform runs, or its kind is asked for messages. */
  take: TakeWebhook;
  publicUrl: string | undefined;
  log: Logger;
};

export function withPlatformWebhooks(next: Handler, options: WebhookOptions): Handler {
  const senders = createSenders(options, { refusedPerMinute, noun: { one: "a request", many: "requests" } });
  return async (request, response) => {
    const [, orgId, stableId] = path.exec(request.url ?? "") ?? [];
    if (orgId === undefined || stableId === undefined) return next(request, response);
    const answer = await answerOf(options, senders, request, { orgId, stableId }).catch((error: unknown) => {
      const problem = failedProblem(error);
      if (problem.status !== 429)
        options.log.warn({ err: error, orgId, platform: stableId }, "a platform's message was not taken in");
      return answerWith(problem);
    });
    await send(response, answer);
  };
}

async function answerOf(
  { take, publicUrl }: WebhookOptions,
  senders: Senders,
  request: IncomingMessage | Http2ServerRequest,
  platform: { orgId: string; stableId: string },
): Promise<Response> {
  const sent = await senders.admit(request, `${platform.orgId} ${platform.stableId}`);
  if ("error" in sent) return answerWith(sent);
  const isRead = request.method === "GET" || request.method === "HEAD";
  const asked = new Request(new URL(request.url ?? "/", publicUrl ?? "http://localhost"), {
    method: request.method ?? "POST",
    headers: headersOf(request.headers),
    ...(isRead ? {} : { body: new Uint8Array(sent.body) }),
  });
  const answer = await within(
    take(platform, asked).then((taken) => taken ?? "none"),
    takeMs,
  );
  if (!answer) return answerWith({ status: 503, error: "it takes too long; try again later", waitMs: 5_000 });
  if (answer === "none") {
    sent.noteUnverified();
    return answerWith({
      status: 404,
      error: "no such platform runs here that takes messages on this path",
    });
  }
  if (answer.status === 401 || answer.status === 403) sent.noteUnverified();
  return answer;
}

function answerWith({ status, error, waitMs }: Problem): Response {
  const headers = waitMs === undefined ? {} : { "retry-after": retryAfterOf(waitMs) };
  return Response.json({ error }, { status, headers });
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
