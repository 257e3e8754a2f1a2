import type { Server as Http1Server, IncomingMessage, ServerResponse } from "node:http";
import {
  constants,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Stream,
} from "node:http2";
import type { TLSSocket } from "node:tls";
import type { Crowd } from "../crowd/crowd.ts";
import type { Visit } from "../crowd/visit.ts";
import { http1Problem, http2Problem } from "./authority.ts";
import type { LastLine } from "./last-line.ts";
import {
  cutStream,
  endRequest,
  endStream,
  endWithAnswer,
  refuse,
  refuseBusy,
  refuseStream,
} from "./request-ends.ts";
import type { Sessions, Watch } from "./sessions.ts";

/** Serves a request. An error or a rejection ends the request (last-line.ts). */
export type Handler = (
  request: IncomingMessage | Http2ServerRequest,
  response: ServerResponse | Http2ServerResponse,
) => void | Promise<void>;

/**
 * Sees each HTTP/2 stream before the handler. Undefined leaves the stream to the handler; otherwise
 * the callee serves the stream until the promise settles, and a rejection cuts the stream.
 */
export type TakeStream = (
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
) => Promise<void> | undefined;

/** HSTS: a browser that has visited the server uses TLS from then on, also for http:// links. */
const strictTransport = ["strict-transport-security", "max-age=31536000"] as const;

/** What a request meets before the handler. */
type RequestOptions = {
  handler: Handler;
  takeStream?: TakeStream | undefined;
  tls?: unknown;
  crowd?: Crowd | undefined;
  lastLine: LastLine;
};

/** Answers requests by the handler, and refuses a request that no handler may see. */
export function requestListener(options: RequestOptions & { isDraining: () => boolean }): Handler {
  const { lastLine, isDraining } = options;
  return (request, response) => {
    const isCleartext = options.tls !== undefined && !isEncrypted(request);
    if ((isCleartext || isDraining()) && request.httpVersionMajor === 1)
      response.setHeader("connection", "close");
    if (options.tls !== undefined && !isCleartext) response.setHeader(...strictTransport);
    if (isCleartext) return refuse(response, "This port speaks TLS: use https://");
    // Node's HTTP/1 parser accepts any version number, also 2.0.
    if (!("stream" in request) && request.httpVersionMajor !== 1) {
      return refuse(response, "HTTP/1.1 is spoken here, and HTTP/2 after its preface");
    }
    // Streams of HTTP/2 were checked before they became requests.
    const problem = request.httpVersionMajor === 1 ? http1Problem(request as IncomingMessage) : undefined;
    if (problem !== undefined) return refuse(response, problem);
    const end = () => endRequest(request, response);
    if (request.httpVersionMajor === 2) endWithAnswer((request as unknown as Http2ServerRequest).stream);
    else if (!beginOver1(options.crowd, request as IncomingMessage, response as ServerResponse)) {
      return refuseBusy(response as ServerResponse);
    }
    lastLine.guard(request, end);
    lastLine.guard(response, end);
    lastLine.run(request, () => options.handler(request, response));
  };
}

/**
 * Checks the authority of each HTTP/2 stream, and offers the stream to `takeStream` before Node
 * makes a request and a response of the stream: the two objects are a third of the cost of a stream
 * held open for hours.
 */
export function lookAtStreams(
  http2: Http2Server,
  options: RequestOptions & { sessions: Pick<Sessions, "watchOf"> },
): void {
  type Listener = (...args: unknown[]) => void;
  const compatible = http2.listeners("stream") as Listener[];
  http2.removeAllListeners("stream");
  http2.on("stream", (stream, headers, flags, ...rest: unknown[]) => {
    // First of all: a stream that ended while it was being created still emits its error.
    options.lastLine.guard(stream, endStream);
    const visit = beginOver2(options.crowd, stream, { headers, flags });
    atItsEnd(stream, visit, options.sessions.watchOf(stream.session));
    if (options.crowd && !visit) return cutStream(stream);
    options.lastLine.run(stream, () => {
      const isCleartext =
        options.tls !== undefined && !(stream.session?.socket as TLSSocket | undefined)?.encrypted;
      const problem = http2Problem(headers);
      if (problem !== undefined && !isCleartext) return refuseStream(stream, problem);
      const taken = isCleartext ? undefined : options.takeStream?.(stream, headers);
      // Who takes a stream tells the visit of its end.
      if (taken) return taken;
      if (visit) stream.on("end", () => visit.whole());
      for (const listener of compatible) listener.call(http2, stream, headers, flags, ...rest);
      return undefined;
    });
  });
}

/**
 * One listener for all that watch the stream. Kept as long as the stream, so in a scope without the
 * headers.
 */
function atItsEnd(stream: ServerHttp2Stream, visit: Visit | undefined, watch: Watch | undefined): void {
  watch?.begin();
  stream.on("close", () => {
    visit?.end();
    watch?.end();
  });
}

/** Counts an HTTP/1 request in; false if its address has made too many. */
function beginOver1(crowd: Crowd | undefined, request: IncomingMessage, response: ServerResponse): boolean {
  if (!crowd) return true;
  const { headers, socket } = request;
  const path = pathOf(request.url);
  const visit = crowd.begin(request, {
    headers,
    path,
    peer: socket,
    cut: () => socket.destroy(),
    over: response,
  });
  if (visit) request.on("end", () => visit.whole());
  return visit !== undefined;
}

/** As {@link beginOver1}, for a stream of HTTP/2, whose end is told the visit. */
function beginOver2(
  crowd: Crowd | undefined,
  stream: ServerHttp2Stream,
  { headers, flags }: { headers: IncomingHttpHeaders; flags: number },
): Visit | undefined {
  const peer = stream.session?.socket;
  if (!crowd || !peer) return undefined;
  const visit = crowd.begin(stream, { headers, path: pathOf(headers[":path"]), peer, cut: cutStream });
  if ((flags & constants.NGHTTP2_FLAG_END_STREAM) !== 0) visit?.whole();
  return visit;
}

function pathOf(target: string | string[] | undefined): string {
  return String(target ?? "").split("?", 1)[0] ?? "";
}

/**
 * Answers `CONNECT` with 405. Node closes the connection without an answer; HTTP/2 answers 405 by
 * itself.
 */
export function answerConnect(http1: Http1Server): void {
  http1.on("connect", (_request, socket) => {
    const reason = "This is no proxy: CONNECT is not served.\n";
    socket.on("error", () => {});
    socket.end(
      "HTTP/1.1 405 Method Not Allowed\r\nconnection: close\r\ncontent-type: text/plain\r\n" +
        `content-length: ${reason.length}\r\n\r\n${reason}`,
    );
  });
}

function isEncrypted(request: IncomingMessage | Http2ServerRequest): boolean {
  return (request.socket as TLSSocket).encrypted === true;
}
