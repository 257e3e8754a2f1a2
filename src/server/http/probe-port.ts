/**
 * A port for probes alone, which traffic at the main port cannot fill. HTTP/1 only, with few
 * connections: only load balancers, a kubelet and Prometheus should be able to reach it.
 */
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Refusal } from "../../errors.ts";
import { http1Problem } from "./port/authority.ts";
import type { LastLine } from "./port/last-line.ts";
import type { Handler } from "./port/requests.ts";

const connectionsMax = 256;
const timeoutMs = 10_000;

export type ProbePort = { port: number; close(): Promise<void> };

/** Listens, or refuses when the address cannot be had. */
export async function openProbePort(options: {
  host: string;
  port: number;
  handler: Handler;
  lastLine: LastLine;
}): Promise<ProbePort> {
  const server = createServer(
    {
      maxHeaderSize: 16 * 1024,
      headersTimeout: timeoutMs,
      requestTimeout: timeoutMs,
      keepAliveTimeout: timeoutMs,
      connectionsCheckingInterval: timeoutMs / 2,
    },
    (request, response) => {
      options.lastLine.guard(request, () => void response.destroy());
      options.lastLine.guard(response, () => void response.destroy());
      const problem = http1Problem(request);
      if (problem !== undefined) answer(response, 400, problem);
      else options.lastLine.run(request, () => options.handler(request, response));
    },
  );
  server.maxConnections = connectionsMax;
  // A silent connection does not keep its place.
  server.on("connection", (socket) => socket.setTimeout(timeoutMs, () => socket.destroy()));
  await new Promise<void>((resolve, reject) => {
    server.once("error", (error: NodeJS.ErrnoException) => {
      const where = `port ${options.port} on ${options.host}`;
      const message = `the probes cannot listen at ${where} (${error.code}); choose another PINION_PROBE_PORT`;
      reject(new Refusal("failed_precondition", message));
    });
    server.listen({ host: options.host, port: options.port }, resolve);
  });
  return {
    port: (server.address() as AddressInfo).port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

/** Answers every path that is no probe, with 404. */
export const noProbe: Handler = (_request, response) => {
  answer(response as ServerResponse, 404, "this port answers /healthz, /readyz and /metrics");
};

function answer(response: ServerResponse, status: number, reason: string): void {
  response.writeHead(status, { "content-type": "text/plain" });
  response.end(`${reason}\n`);
}
