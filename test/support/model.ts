/**
 * A model server with a script: Anthropic's Messages and OpenAI's Responses over server-sent
 * events, for the real agents in test/agents. Records the requests. Each answer is chosen per
 * request, so that a script can read the agent's input (a tool's result, a schema, the text of an
 * earlier turn).
 */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import {
  apiOf,
  geminiReply,
  type ModelReply,
  type ModelRequest,
  requestOf,
  type Step,
  streamOf,
} from "./model-dialects.ts";

export interface Model {
  url: string;
  requests: ModelRequest[];
  /** Decides the answers from now on; `index` counts the requests from 0 since this call. */
  script(reply: (request: ModelRequest, index: number) => ModelReply | Promise<ModelReply>): void;
  /** Sets the answers in order; the last answer repeats for ever. */
  replies(...replies: ModelReply[]): void;
  /** Resolves after this many requests since the last script. */
  asked(count: number): Promise<void>;
  close(): Promise<void>;
}

const bodyBytesMax = 32 * 1024 * 1024;

export async function startModel(): Promise<Model> {
  const script = new Script();
  const server = createServer((request, response) => {
    response.on("error", () => {});
    void answer(script, request, response).catch(() => response.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return {
    url: `http://127.0.0.1:${port}`,
    requests: script.requests,
    script: (reply) => script.begin(reply),
    replies: (...replies) => script.begin((_, place) => replies[Math.min(place, replies.length - 1)] ?? {}),
    asked: (count) => script.asked(count),
    close: async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

type Decide = (request: ModelRequest, index: number) => ModelReply | Promise<ModelReply>;

/** The answers of a model, and the requests so far. */
class Script {
  readonly requests: ModelRequest[] = [];
  #decide: Decide = () => ({ text: "Hello from a scripted model." });
  #index = 0;
  #waiters: { count: number; resolve: () => void }[] = [];

  begin(decide: Decide): void {
    this.#decide = decide;
    this.#index = 0;
  }

  asked(count: number): Promise<void> {
    return new Promise((resolve) => {
      if (this.#index >= count) resolve();
      else this.#waiters.push({ count, resolve });
    });
  }

  async replyTo(request: ModelRequest): Promise<ModelReply> {
    this.requests.push(request);
    const place = this.#index++;
    this.#waiters = this.#waiters.filter(({ count, resolve }) => {
      if (this.#index < count) return true;
      resolve();
      return false;
    });
    return this.#decide(request, place);
  }
}

async function answer(script: Script, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const path = new URL(request.url ?? "/", "http://model").pathname;
  const body = await bodyOf(request);
  const api = apiOf(path);
  if (api === undefined || request.method !== "POST") {
    answerOther(path, request, response);
    return;
  }
  const asked = requestOf(api, path, body);
  asked.headers = Object.fromEntries(
    Object.entries(request.headers).map(([name, value]) => [name, String(value)]),
  );
  const reply = await script.replyTo(asked);
  if (reply.delayMs !== undefined) await sleep(reply.delayMs);
  if (reply.hangs) return;
  if (reply.error !== undefined) answerError(response, reply.error);
  else if (api === "gemini")
    answerWhole(response, reply, { isStream: path.endsWith(":streamGenerateContent") });
  else await answerPieces(response, streamOf(asked, reply));
}

/** A request that asks for no answer of the model: the list of models, or a look at the server. */
function answerOther(path: string, request: IncomingMessage, response: ServerResponse): void {
  const isModels = path.endsWith("/models");
  response.writeHead(isModels || request.method === "HEAD" ? 200 : 404, {
    "content-type": "application/json",
  });
  response.end(
    isModels
      ? '{"data":[],"models":[]}'
      : '{"type":"error","error":{"type":"not_found_error","message":"no"}}',
  );
}

function answerError(response: ServerResponse, error: NonNullable<ModelReply["error"]>): void {
  const { status, type, message, retryAfterSeconds } = error;
  response.writeHead(status, {
    "content-type": "application/json",
    ...(retryAfterSeconds === undefined ? {} : { "retry-after": String(retryAfterSeconds) }),
  });
  response.end(JSON.stringify({ type: "error", error: { type, message, code: type } }));
}

function answerWhole(response: ServerResponse, reply: ModelReply, { isStream }: { isStream: boolean }): void {
  response.writeHead(200, { "content-type": isStream ? "text/event-stream" : "application/json" });
  const whole = JSON.stringify(geminiReply(reply));
  response.end(isStream ? `data: ${whole}\n\n` : whole);
}

async function answerPieces(response: ServerResponse, stream: Iterable<Step>): Promise<void> {
  response.writeHead(200, { "content-type": "text/event-stream" });
  for (const step of stream) {
    if (step.kind === "cut") {
      response.socket?.destroy();
      return;
    }
    if (step.kind === "wait") await sleep(step.ms);
    else if (!response.destroyed)
      response.write(`event: ${step.event.type}\ndata: ${JSON.stringify(step.event)}\n\n`);
  }
  response.end();
}

async function bodyOf(request: IncomingMessage): Promise<Record<string, unknown>> {
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    bytes += part.length;
    if (bytes > bodyBytesMax) throw new Error("the agent sent more than 32 MiB");
    parts.push(part);
  }
  try {
    return JSON.parse(Buffer.concat(parts).toString("utf8")) as Record<string, unknown>;
  } catch {
    return {};
  }
}
