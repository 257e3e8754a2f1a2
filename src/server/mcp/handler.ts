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
import { within } from "../../time/abort.ts";
import { isProof, readAgentToken } from "../../values/agent-token.ts";
import type { JsonValue } from "../../values/json.ts";
import type { Guard } from "../access/guard.ts";
import type { Limits } from "../access/limits.ts";
import type { Handler } from "../http/port/requests.ts";
import { type AgentToolsOptions, addAgentTools } from "./agent-tools.ts";
import { type Api, addApiTools } from "./api-tools.ts";
import { messagesOf } from "./messages.ts";

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
/** Milliseconds until a request is given up; the tool that waits longest answers within 50 s. */
const answerMsMax = 60_000;

export function createMcpHandler(options: McpOptions): Handler {
  return async (request, response) => {
    const answer = response as ServerResponse;
    try {
      const server = new McpServer({ name: "pinion", version: build.version });
      const admitted = await admit(options, request, server);
      // A server without sessions has nothing to stream on its own, and none to end.
      if (request.method !== "POST") return refuse(answer, 405, "only POST", { headers: { allow: "POST" } });
      const body = await readText(request);
      if (body === undefined) return refuse(answer, 413, `a message has at most ${bodyBytesMax} bytes`);
      const read = messagesOf(body);
      if ("code" in read) return refuse(answer, 400, read.message, { code: read.code });
      admitted.requireCalls(read.count);
      await admitted.within(() => serve(server, request, answer, read.messages));
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      if (answer.headersSent) return;
      const isUnknown = error.reason === "unauthenticated";
      const status = isUnknown ? 401 : error.reason === "resource_exhausted" ? 429 : 503;
      const headers: Record<string, string> = isUnknown
        ? { "www-authenticate": 'Bearer realm="pinion"' }
        : {};
      refuse(answer, status, error.message, { headers });
    }
  };
}

type Admitted = {
  /** The surroundings of the work. */
  within: <T>(fn: () => Promise<T>) => Promise<T>;
  /** Counts the request's calls against the caller's limit, if the API does not count them. */
  requireCalls(count: number): void;
};

/** Gives the server the caller's tools. */
async function admit(options: McpOptions, request: Request, server: McpServer): Promise<Admitted> {
  const { authorization = "" } = request.headers;
  const claim = readAgentToken(authorization);
  if (claim) {
    const { orgId, runId } = claim;
    const attempt = await withinOrg(orgId, () => findLive(options.db, { orgId, runId }));
    if (!attempt) await withinOrg(orgId, () => requireHere(options.db, { orgId }));
    if (!attempt || !isProof(claim, attempt.attemptToken)) {
      throw new Refusal("unauthenticated", "the token is good for the length of its attempt, which is over");
    }
    addAgentTools(server, { ...options, attempt });
    return {
      within: (fn) => withinOrg(orgId, fn),
      requireCalls(count) {
        for (let call = 0; call < Math.max(count, 1); call++) options.limits.requireRequest(`run ${runId}`);
      },
    };
  }
  await options.guard.authenticate(authorization);
  const userAgent = String(request.headers["user-agent"] ?? "");
  addApiTools(server, options.api({ authorization, userAgent, address: options.addressOf(request) }));
  return { within: (fn) => fn(), requireCalls() {} };
}

async function serve(
  server: McpServer,
  request: Request,
  answer: ServerResponse,
  messages: JsonValue,
): Promise<void> {
  const transport = new WebStandardStreamableHTTPServerTransport({ enableJsonResponse: true });
  await server.connect(transport);
  try {
    const headers = new Headers();
    for (const [name, value] of Object.entries(request.headers)) {
      if (!name.startsWith(":") && value !== undefined) headers.set(name, String(value));
    }
    const asked = new Request(`http://pinion${request.url ?? "/mcp"}`, { method: "POST", headers });
    const said = await unlessGone(answer, transport.handleRequest(asked, { parsedBody: messages }));
    if (answer.destroyed) return;
    if (!said) return refuse(answer, 504, `it was not answered within ${answerMsMax} ms`);
    const text = await said.text();
    answer.writeHead(said.status, {
      "content-type": said.headers.get("content-type") ?? "application/json",
      "cache-control": "no-store",
    });
    answer.end(text);
  } finally {
    // Ends what still works for the request.
    await server.close();
  }
}

/** Resolves with undefined once the caller is gone, or has waited for {@link answerMsMax}. */
async function unlessGone<T>(answer: ServerResponse, work: Promise<T>): Promise<T | undefined> {
  const { promise: gone, resolve } = Promise.withResolvers<undefined>();
  const end = () => resolve(undefined);
  answer.once("close", end);
  try {
    return await within(Promise.race([work, gone]), answerMsMax);
  } finally {
    answer.removeListener("close", end);
    // The work of a caller that is gone may still fail.
    work.catch(() => {});
  }
}

async function readText(request: Request): Promise<string | undefined> {
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
  { code = -32_000, headers = {} }: { code?: number; headers?: Record<string, string> } = {},
): void {
  answer.writeHead(status, { "content-type": "application/json", "cache-control": "no-store", ...headers });
  answer.end(JSON.stringify({ jsonrpc: "2.0", id: null, error: { code, message } }));
}
