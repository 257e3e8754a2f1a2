import type { IncomingMessage, ServerResponse } from "node:http";
import {
  constants,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type ServerHttp2Stream,
} from "node:http2";

/**
 * Resets a stream and drops its received data, which Node would otherwise keep until a reader takes
 * it.
 */
export function cutStream(stream: ServerHttp2Stream): void {
  if (stream.destroyed) return;
  stream.on("error", () => {});
  stream.close(constants.NGHTTP2_ENHANCE_YOUR_CALM);
  stream.destroy();
}

/**
 * Ends an HTTP/2 request answered before its whole body arrived: Node would keep later data for no
 * reader.
 */
export function endWithAnswer(stream: ServerHttp2Stream): void {
  stream.once("wantTrailers", () => {
    if (!stream.state.remoteClose) stopReading(stream);
  });
}

export function refuseBusy(response: ServerResponse): void {
  response.writeHead(429, { "content-type": "text/plain", "retry-after": "10", connection: "close" });
  response.end("too many requests without a token from this address; wait, or use a token\n");
}

/** Ends a request whose handler failed: with 500 if no byte of an answer has left. */
export function endRequest(
  request: IncomingMessage | Http2ServerRequest,
  response: ServerResponse | Http2ServerResponse,
): void {
  if (request.httpVersionMajor === 2) {
    endStream((request as Http2ServerRequest).stream);
    return;
  }
  const answer = response as ServerResponse;
  if (answer.writableEnded) return;
  if (answer.headersSent) {
    answer.destroy();
    return;
  }
  answer.writeHead(500, { "content-type": "text/plain", connection: "close" });
  answer.end("internal error\n");
}

export function endStream(stream: ServerHttp2Stream): void {
  if (stream.destroyed || stream.closed) return;
  if (stream.headersSent) {
    stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    return;
  }
  stream.on("error", () => {});
  stream.respond({ ":status": 500, "content-type": "text/plain" });
  stream.end("internal error\n");
  stopReading(stream);
}

export function refuseStream(stream: ServerHttp2Stream, reason: string): void {
  stream.on("error", () => {});
  stream.respond({ ":status": 400, "content-type": "text/plain" });
  stream.end(`${reason}\n`);
  stopReading(stream);
}

/** Stops reading: later data has no use. A reset in the same turn would overtake the answer. */
function stopReading(stream: ServerHttp2Stream): void {
  setImmediate(() => {
    if (!stream.destroyed) stream.close(constants.NGHTTP2_NO_ERROR);
  });
}

export function refuse(response: ServerResponse | Http2ServerResponse, reason: string): void {
  (response as ServerResponse).writeHead(400, { "content-type": "text/plain" });
  response.end(`${reason}\n`);
}
