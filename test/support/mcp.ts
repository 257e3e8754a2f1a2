/** A Model Context Protocol server over HTTP with one tool, `ping`; records its callers. */
import { createServer } from "node:http";
import { onTestFinished } from "vitest";

export interface McpServer {
  url: string;
  /** The Authorization header of each request. */
  tokens: string[];
  /** Arguments of the calls of `ping`. */
  calls: unknown[];
}

export async function startMcpServer(): Promise<McpServer> {
  const tokens: string[] = [];
  const calls: unknown[] = [];
  const server = createServer(async (request, response) => {
    const parts: Buffer[] = [];
    for await (const part of request as AsyncIterable<Buffer>) parts.push(part);
    tokens.push(String(request.headers.authorization ?? ""));
    if (request.method !== "POST") {
      response.writeHead(405).end();
      return;
    }
    const message = JSON.parse(Buffer.concat(parts).toString("utf8")) as {
      id?: unknown;
      method: string;
      params?: { protocolVersion?: string; arguments?: unknown };
    };
    if (message.id === undefined) {
      response.writeHead(202).end();
      return;
    }
    const result = answer(message.method, message.params);
    if (message.method === "tools/call") calls.push(message.params?.arguments);
    response.writeHead(200, { "content-type": "application/json" });
    response.end(JSON.stringify({ jsonrpc: "2.0", id: message.id, result }));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as { port: number };
  return { url: `http://127.0.0.1:${port}/mcp`, tokens, calls };
}

function answer(method: string, params: { protocolVersion?: string } | undefined): unknown {
  switch (method) {
    case "initialize":
      return {
        protocolVersion: params?.protocolVersion ?? "2025-06-18",
        capabilities: { tools: {} },
        serverInfo: { name: "pong", version: "1" },
      };
    case "tools/list":
      return {
        tools: [
          {
            name: "ping",
            description: "Answers pong.",
            inputSchema: { type: "object", properties: { word: { type: "string" } } },
            annotations: { readOnlyHint: true },
          },
        ],
      };
    case "tools/call":
      return { content: [{ type: "text", text: "pong-42" }] };
    default:
      return {};
  }
}
