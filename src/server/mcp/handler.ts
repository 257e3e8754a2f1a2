/**
 * `/mcp`: the Model Context Protocol over streamable HTTP, on the port of the API. Stateless: each
 * request has a server object of its own, so any replica answers any request.
 *
 * The bearer token identifies the caller. A person's or a service's token has tools that are calls
 * of the API, through the API's own interceptors: guard, ownership, limits and redaction apply. The
 * token of a run's agent (src/values/agent-token.ts) has tools for its own run and watcher alone.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { WebStandardStreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/webStandardStreamableHttp.js";
import { build } from "../../build.ts";
import { Refusal } from "../../errors.ts";
import type { Db } from "../../store/pg/database.ts";
import { withinOrg } from "../../store/pg/tenancy.ts";
import { findLive } from "../../store/work/attempts/attempts.ts";
import { requireHere } from "../../store/work/service/org-moves.ts";
import { isProof, readAgentToken } from "../../values/agent-token.ts";
import type { Guard } from "../access/guard.ts";
import type { Limits } from "../access/limits.ts";
import type { Handler } from "../http/port/requests.ts";
import { type AgentToolsOptions, addAgentTools } from "./agent-tools.ts";
import { type Api, addApiTools } from "./api-tools.ts";

type Request = Parameters<Handler>[0];

export type McpOptions = {
  guard: Pick<Guard, "authenticate">;
  limits: Pick<Limits, "requireRequest">;
  /** Confined to an org. */
  db: Db;
  bell: AgentToolsOptions["bell"];
  /** The API with the rights of the caller. */
  api: (caller: { authorization: string; address: string; userAgent: string }) => Api;
  addressOf: (request: Request) => string;
};

const bodyBytesMax = 1_048_576;

export function createMcpHandler(options: McpOptions): Handler {
  return async (request, response) => {
    const answer = response as ServerResponse;
    try {
      const server = new McpServer({ name: "pinion", version: build.version });
      const within = await admit(options, request, server);
      // A server without sessions has nothing to stream on its own, and none to end.
      if (request.method !== "POST") return refuse(answer, 405, "only POST", { allow: "POST" });
      const body = await read(request);
      if (body === undefined) return refuse(answer, 413, `a message has at most ${bodyBytesMax} bytes`);
      await within(() => serve(server, request, answer, body));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (answer.headersSent) return;
      const isUnknown = error.reason === "unauthenticated";
      const status = isUnknown ? 401 : error.reason === "resource_exhausted" ? 429 : 503;
      refuse(answer, status, error.message, isUnknown ? { "www-authenticate": 'Bearer realm="pinion"' } : {});
    }
  };
}

type Within = <T>(fn: () => Promise<T>) => Promise<T>;

/** Gives the server the caller's tools; returns the surroundings of the work. */
async function admit(options: McpOptions, request: Request, server: McpServer): Promise<Within> {
  const { authorization = "" } = request.headers;
  const claim = readAgentToken(authorization);
  if (claim) {
    const { orgId, runId } = claim;
    const attempt = await withinOrg(orgId, () => findLive(options.db, { orgId, runId }));
    if (!attempt) await withinOrg(orgId, () => requireHere(options.db, { orgId }));
    if (!attempt || !isProof(claim, attempt.attemptToken)) {
      throw new Refusal("unauthenticated", "the token is good for the length of its attempt, which is over");
    }
    options.limits.requireRequest(`run ${runId}`);
    addAgentTools(server, { ...options, attempt });
    return (fn) => withinOrg(orgId, fn);
  }
  await options.guard.authenticate(authorization);
  const userAgent = String(request.headers["user-agent"] ?? "");
  addApiTools(server, options.api({ authorization, userAgent, address: options.addressOf(request) }));
  return (fn) => fn();
}

async function serve(
  server: McpServer,
  request: Request,
  answer: ServerResponse,
  body: string,
): Promise<void> {
  const transport = new WebStandardStreamableHTTPServerTransport({ enableJsonResponse: true });
  await server.connect(transport);
  try {
    const headers = new Headers();
    for (const [name, value] of Object.entries(request.headers)) {
      if (!name.startsWith(":") && value !== undefined) headers.set(name, String(value));
    }
    const url = `http://pinion${request.url ?? "/mcp"}`;
    const said = await transport.handleRequest(new Request(url, { method: "POST", headers, body }));
    const text = await said.text();
    if (answer.destroyed) return;
    answer.writeHead(said.status, {
      "content-type": said.headers.get("content-type") ?? "application/json",
      "cache-control": "no-store",
    });
    answer.end(text);
  } finally {
    await server.close();
  }
}

async function read(request: Request): Promise<string | undefined> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of request as IncomingMessage) {
    bytes += (chunk as Buffer).length;
    if (bytes > bodyBytesMax) return undefined;
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function refuse(
  answer: ServerResponse,
  status: number,
  message: string,
  headers: Record<string, string> = {},
): void {
  answer.writeHead(status, { "content-type": "application/json", "cache-control": "no-store", ...headers });
  answer.end(JSON.stringify({ jsonrpc: "2.0", id: null, error: { code: -32_000, message } }));
}
