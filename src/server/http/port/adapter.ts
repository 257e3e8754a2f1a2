/**
 * The services as a handler of the port: Connect, gRPC and gRPC-Web. Connect's own adapter writes
 * errors to standard error and leaves the response open; this adapter rejects, and the port ends
 * the request and counts the error.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest } from "node:http2";
import { base64Decode } from "@bufbuild/protobuf/wire";
import { Code, ConnectError, type ContextValues, createConnectRouter } from "@connectrpc/connect";
import { parseTimeout as parseConnectTimeout } from "@connectrpc/connect/protocol-connect";
import { parseTimeout as parseGrpcTimeout } from "@connectrpc/connect/protocol-grpc";
import {
  type ConnectNodeAdapterOptions,
  compressionBrotli,
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import { timerMsMax } from "../../../time/abort.ts";
import type { Crowd } from "../crowd/crowd.ts";
import type { Visit } from "../crowd/visit.ts";
import { blameCaller, blamingCompression } from "./malformed.ts";
import type { Handler } from "./requests.ts";

type Request = Parameters<Handler>[0];

/**
 * Nothing reads the fields that this version does not know. Kept, a million of them in a message of
 * 3 MB cost 220 MB.
 */
export const readOptions = { readUnknownFields: false } as const;

export const acceptCompression = [compressionGzip, compressionBrotli].map(blamingCompression);

export type RpcHandlerOptions = Omit<ConnectNodeAdapterOptions, "fallback" | "contextValues"> & {
  contextValues: (request: Request) => ContextValues;
  crowd?: Pick<Crowd, "find">;
};

export type RpcHandler = Handler & {
  /** Whether messages come for as long as the call lasts. */
  isStream(path: string): boolean;
};

export function createRpcHandler(options: RpcHandlerOptions): RpcHandler {
  const { contextValues, crowd, ...common } = options;
  const router = createConnectRouter({
    acceptCompression,
    binaryOptions: readOptions,
    ...common,
  });
  options.routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  const isStream = (path: string) => {
    const kind = handlers.get(path)?.method.methodKind;
    return kind === "bidi_streaming" || kind === "client_streaming";
  };
  const serve: Handler = async (request, response) => {
    const handler = handlers.get(request.url?.split("?", 1)[0] ?? "");
    if (!handler) {
      (response as ServerResponse).writeHead(404);
      response.end();
      return;
    }
    if (!isQueryReadable(request)) {
      (response as ServerResponse).writeHead(400, { "content-type": "application/json" });
      response.end(
        JSON.stringify({ code: "invalid_argument", message: 'the parameter "message" is no base64' }),
      );
      return;
    }
    const asked = universalRequestFromNodeRequest(request, response, undefined, contextValues(request));
    dropFarDeadline(asked.header);
    const visit = crowd?.find(
      request.httpVersionMajor === 2 ? (request as Http2ServerRequest).stream : (request as IncomingMessage),
    );
    const bytes = asked.body as AsyncIterable<Uint8Array>;
    const body = visit ? countBody(bytes, visit, isStream(handler.requestPath)) : bytes;
    try {
      const answer = await blameCaller(await handler({ ...asked, body }));
      await universalResponseToNodeResponse(answer, response);
    } catch (error) {
      // A peer may leave before its answer is written: no error of the server.
      if (!isGone(request) && ConnectError.from(error).code !== Code.Aborted) throw error;
    }
  };
  return Object.assign(serve, { isStream });
}

/**
 * Takes away a deadline in more than 24 days: Node's timers would end the call at once, where its
 * caller means that it may last.
 */
function dropFarDeadline(header: Headers): void {
  const grpc = parseGrpcTimeout(header.get("grpc-timeout"), timerMsMax);
  if ((grpc.timeoutMs ?? 0) > timerMsMax) header.delete("grpc-timeout");
  const connect = parseConnectTimeout(header.get("connect-timeout-ms"), timerMsMax);
  if ((connect.timeoutMs ?? 0) > timerMsMax) header.delete("connect-timeout-ms");
}

/**
 * Whether the message of a Connect GET can be decoded: of one that cannot, the library makes an
 * internal error.
 */
function isQueryReadable({ method, url = "" }: Request): boolean {
  const at = url.indexOf("?");
  if (method !== "GET" || at < 0) return true;
  const parameters = new URLSearchParams(url.slice(at));
  if (parameters.get("base64") !== "1") return true;
  try {
    base64Decode(parameters.get("message") ?? "");
    return true;
  } catch {
    return false;
  }
}

/**
 * Counts the received bytes of a body until its call ends; of a stream, only the bytes of an
 * incomplete message.
 */
async function* countBody(
  body: AsyncIterable<Uint8Array>,
  visit: Visit,
  isStream: boolean,
): AsyncGenerator<Uint8Array> {
  visit.isStream = isStream;
  const envelopes = new EnvelopeCounter();
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    if (isStream) visit.holdExactly(envelopes.push(chunk));
    else visit.holdAtLeast(bytes);
    yield chunk;
  }
}

/**
 * Counts the received bytes of an incomplete message. Each message has 5 bytes in front: 1 of
 * flags, 4 of length.
 */
class EnvelopeCounter {
  readonly #prefix = Buffer.alloc(5);
  #prefixBytes = 0;
  /** Length of the current message in bytes, once its 5 bytes in front have been received. */
  #length = 0;
  #bytes = 0;

  /** Takes a chunk. Returns the bytes held of the message that is incomplete after the chunk. */
  push(chunk: Uint8Array): number {
    for (let at = 0; at < chunk.length; ) {
      if (this.#prefixBytes < 5) {
        this.#prefix[this.#prefixBytes++] = chunk[at++]!;
        if (this.#prefixBytes === 5) this.#length = this.#prefix.readUInt32BE(1);
      } else {
        const taken = Math.min(this.#length - this.#bytes, chunk.length - at);
        this.#bytes += taken;
        at += taken;
      }
      if (this.#prefixBytes === 5 && this.#bytes === this.#length) {
        this.#prefixBytes = 0;
        this.#bytes = 0;
      }
    }
    return this.#prefixBytes + this.#bytes;
  }
}

/** The peer hears no answer any more. */
export function isGone(request: Request): boolean {
  if (request.httpVersionMajor !== 2) return request.socket.destroyed;
  const { stream } = request as Http2ServerRequest;
  return stream === undefined || stream.destroyed || stream.aborted;
}
