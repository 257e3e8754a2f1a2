/**
 * The services as a handler of the port: Connect, gRPC and gRPC-Web. Connect's own adapter writes what goes wrong to
 * standard error and leaves the response open; here it rejects, and the port ends the request and counts it.
 */
import type { ServerResponse } from "node:http";
import type { Http2ServerRequest } from "node:http2";
import { Code, ConnectError, type ContextValues, createConnectRouter } from "@connectrpc/connect";
import {
  type ConnectNodeAdapterOptions,
  compressionBrotli,
  compressionGzip,
  universalRequestFromNodeRequest,
  universalResponseToNodeResponse,
} from "@connectrpc/connect-node";
import type { Handler } from "./port.ts";

type Request = Parameters<Handler>[0];

export type RpcHandlerOptions = Omit<ConnectNodeAdapterOptions, "fallback" | "contextValues"> & {
  contextValues: (request: Request) => ContextValues;
};

export function createRpcHandler(options: RpcHandlerOptions): Handler {
  const { contextValues, ...common } = options;
  const router = createConnectRouter({
    acceptCompression: [compressionGzip, compressionBrotli],
    ...common,
  });
  options.routes(router);
  const handlers = new Map(router.handlers.map((handler) => [handler.requestPath, handler]));
  return async (request, response) => {
    const handler = handlers.get(request.url?.split("?", 1)[0] ?? "");
    if (!handler) {
      (response as ServerResponse).writeHead(404);
      response.end();
      return;
    }
    const asked = universalRequestFromNodeRequest(request, response, undefined, contextValues(request));
    try {
      await universalResponseToNodeResponse(await handler(asked), response);
    } catch (error) {
      // A peer that leaves before its answer is written is no mistake of ours.
      if (!isGone(request) && ConnectError.from(error).code !== Code.Aborted) throw error;
    }
  };
}

/** The peer hears no answer any more. */
export function isGone(request: Request): boolean {
  if (request.httpVersionMajor !== 2) return request.socket.destroyed;
  const { stream } = request as Http2ServerRequest;
  return stream === undefined || stream.destroyed || stream.aborted;
}
