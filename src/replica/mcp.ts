/**
 * The MCP endpoint of a replica: its tools for people and services call the API within the process.
 */
import {
  type ConnectRouter,
  createClient,
  createRouterTransport,
  type Interceptor,
  type Transport,
} from "@connectrpc/connect";
import { RunService } from "#gen/pinion/v1/run_pb.js";
import { WatcherService } from "#gen/pinion/v1/watcher_pb.js";
import { setPeerAddress } from "../server/access/peer.ts";
import type { RpcHandler } from "../server/http/port/adapter.ts";
import type { Handler } from "../server/http/port/requests.ts";
import { createMcpHandler, type McpOptions } from "../server/mcp/handler.ts";

/**
 * Header of calls within the process only, with the peer's address for the API's limits and events.
 */
const addressHeader = "x-pinion-peer-address";

/** Creates the endpoint; `routes` are the API's, and `interceptors` apply to each of its calls. */
export function createMcp(
  options: Omit<McpOptions, "api"> & {
    routes: (router: ConnectRouter) => void;
    interceptors: Interceptor[];
    shutdownSignal: AbortSignal;
  },
): Handler {
  const { routes, interceptors, shutdownSignal } = options;
  const placed: Interceptor = (next) => (request) => {
    setPeerAddress(request.contextValues, request.header.get(addressHeader) ?? "");
    return next(request);
  };
  let made: Transport | undefined;
  // Made by the first call: most replicas have no MCP client.
  const inner = () => {
    made ??= createRouterTransport(routes, {
      router: { interceptors: [placed, ...interceptors], shutdownSignal },
    });
    return made;
  };
  return createMcpHandler({
    ...options,
    api({ authorization, address, userAgent }) {
      const transport = withHeaders(inner(), {
        authorization,
        [addressHeader]: address,
        "user-agent": userAgent,
      });
      return {
        watchers: createClient(WatcherService, transport),
        runs: createClient(RunService, transport),
      };
    },
  });
}

function withHeaders(inner: Transport, headers: Record<string, string>): Transport {
  const both = (given: ConstructorParameters<typeof Headers>[0]) => {
    const all = new Headers(given);
    for (const [name, value] of Object.entries(headers)) all.set(name, value);
    return all;
  };
  return {
    unary: (method, signal, timeoutMs, header, input, values) =>
      inner.unary(method, signal, timeoutMs, both(header), input, values),
    stream: (method, signal, timeoutMs, header, input, values) =>
      inner.stream(method, signal, timeoutMs, both(header), input, values),
  };
}

/** Adds the MCP endpoint to the rpc handler. */
export function withMcp(rpc: RpcHandler, mcp: Handler): RpcHandler {
  const serve: Handler = (request, response) =>
    request.url?.split("?", 1)[0] === "/mcp" ? mcp(request, response) : rpc(request, response);
  return Object.assign(serve, { isStream: rpc.isStream });
}
