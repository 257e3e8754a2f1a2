/** The dialects of the scripted model: the requests and answers of three APIs, in one shape. */
import { randomUUID } from "node:crypto";

/** A request of an agent to its model, in one shape for both APIs. */
export interface ModelRequest {
  api: "anthropic" | "openai" | "gemini";
  model: string;
  /** The system prompt or instructions, joined. */
  system: string;
  /** All texts of people, tools and the model so far, as JSON. */
  conversation: string;
  /** Names of the tools offered to the model. */
  tools: string[];
  /** The last entry of the conversation, as text; for a tool's result, the result. */
  last: string;
  /** The last entry is a tool's result. */
  isAfterTool: boolean;
  body: Record<string, unknown>;
  headers: Record<string, string>;
}

/** An answer of the model. */
export interface ModelReply {
  thinking?: string;
  text?: string;
  /** Calls of tools, after the text. */
  calls?: { name: string; namespace?: string; input: Record<string, unknown> }[];
  /** The stop reason; by default the end of the answer, or the call of tools. */
  stop?: "max_tokens" | "refusal";
  /** The reported token usage. */
  usage?: { input: number; output: number; cached?: number };
  /** Instead of an answer: an error. */
  error?: { status: number; type: string; message: string; retryAfterSeconds?: number };
  /** Waits before the first byte, in ms. */
  delayMs?: number;
  /** Waits between two pieces of text, in ms; the text then comes in words. */
  pieceMs?: number;
  /** Closes the connection after this many words of text. */
  cutAfterWords?: number;
  /** Never answers, until the agent goes away. */
  hangs?: boolean;
}

/** A step of an answer by server-sent events. */
export type Step =
  | { kind: "event"; event: { type: string } & Record<string, unknown> }
  | { kind: "wait"; ms: number }
  | { kind: "cut" };

const step = (type: string, rest: Record<string, unknown>): Step => ({
  kind: "event",
  event: { type, ...rest },
});

/** The text in pieces, with the waits and the cut requested by the reply. */
function* pieces(reply: ModelReply, text: string, piece: (text: string) => Step): Generator<Step> {
  const isWhole = reply.pieceMs === undefined && reply.cutAfterWords === undefined;
  const words = isWhole ? [text] : text.split(/(?<= )/);
  for (const [place, word] of words.entries()) {
    if (reply.cutAfterWords === place) {
      yield { kind: "cut" };
      return;
    }
    if (reply.pieceMs !== undefined) yield { kind: "wait", ms: reply.pieceMs };
    yield piece(word);
  }
}

function* anthropicStream(request: ModelRequest, reply: ModelReply): Generator<Step> {
  const usage = reply.usage ?? { input: 10, output: 5 };
  yield step("message_start", {
    message: {
      id: `msg_${randomUUID()}`,
      type: "message",
      role: "assistant",
      model: request.model,
      content: [],
      stop_reason: null,
      stop_sequence: null,
      usage: {
        input_tokens: usage.input,
        output_tokens: 1,
        cache_read_input_tokens: usage.cached ?? 0,
        cache_creation_input_tokens: 0,
      },
    },
  });
  let index = 0;
  if (reply.thinking !== undefined) {
    yield step("content_block_start", {
      index,
      content_block: { type: "thinking", thinking: "", signature: "" },
    });
    yield step("content_block_delta", { index, delta: { type: "thinking_delta", thinking: reply.thinking } });
    yield step("content_block_delta", { index, delta: { type: "signature_delta", signature: "c2ln" } });
    yield step("content_block_stop", { index: index++ });
  }
  if (reply.text !== undefined) {
    yield step("content_block_start", { index, content_block: { type: "text", text: "" } });
    const place = index;
    yield* pieces(reply, reply.text, (text) =>
      step("content_block_delta", { index: place, delta: { type: "text_delta", text } }),
    );
    yield step("content_block_stop", { index: index++ });
  }
  for (const { name, input } of reply.calls ?? []) {
    const id = `toolu_${randomUUID().replaceAll("-", "")}`;
    yield step("content_block_start", { index, content_block: { type: "tool_use", id, name, input: {} } });
    yield step("content_block_delta", {
      index,
      delta: { type: "input_json_delta", partial_json: JSON.stringify(input) },
    });
    yield step("content_block_stop", { index: index++ });
  }
  const stop = reply.stop ?? (reply.calls?.length ? "tool_use" : "end_turn");
  yield step("message_delta", {
    delta: { stop_reason: stop, stop_sequence: null },
    usage: { output_tokens: usage.output },
  });
  yield step("message_stop", {});
}

function* openaiStream(request: ModelRequest, reply: ModelReply): Generator<Step> {
  const id = `resp_${randomUUID().replaceAll("-", "")}`;
  const usage = reply.usage ?? { input: 10, output: 5 };
  yield step("response.created", { response: { id, model: request.model, status: "in_progress" } });
  let place = 0;
  if (reply.thinking !== undefined) {
    const item = {
      type: "reasoning",
      id: `rs_${id}`,
      summary: [{ type: "summary_text", text: reply.thinking }],
    };
    yield step("response.output_item.done", { output_index: place++, item });
  }
  if (reply.text !== undefined) {
    const item = { type: "message", role: "assistant", id: `msg_${id}`, content: [] as unknown[] };
    const output_index = place++;
    yield step("response.output_item.added", { output_index, item });
    yield* pieces(reply, reply.text, (delta) =>
      step("response.output_text.delta", { output_index, item_id: item.id, content_index: 0, delta }),
    );
    const kind =
      reply.stop === "refusal"
        ? { type: "refusal", refusal: reply.text }
        : { type: "output_text", text: reply.text };
    yield step("response.output_item.done", { output_index, item: { ...item, content: [kind] } });
  }
  for (const { name, namespace, input } of reply.calls ?? []) {
    const call_id = `call_${randomUUID().replaceAll("-", "")}`;
    const item = {
      type: "function_call",
      id: `fc_${call_id}`,
      call_id,
      name,
      ...(namespace === undefined ? {} : { namespace }),
      arguments: JSON.stringify(input),
    };
    yield step("response.output_item.done", { output_index: place++, item });
  }
  const response = {
    id,
    model: request.model,
    usage: {
      input_tokens: usage.input,
      input_tokens_details: { cached_tokens: usage.cached ?? 0 },
      output_tokens: usage.output,
      output_tokens_details: { reasoning_tokens: 0 },
      total_tokens: usage.input + usage.output,
    },
  };
  if (reply.stop === "max_tokens") {
    yield step("response.incomplete", {
      response: { ...response, status: "incomplete", incomplete_details: { reason: "max_output_tokens" } },
    });
    return;
  }
  yield step("response.completed", { response: { ...response, status: "completed" } });
}

export function apiOf(path: string): ModelRequest["api"] | undefined {
  if (path.endsWith("/messages")) return "anthropic";
  if (path.endsWith("/responses")) return "openai";
  return /:(stream)?[gG]enerateContent$/.test(path) ? "gemini" : undefined;
}

/** In one piece: the tests of waits and cuts use the other dialects. */
export function geminiReply(reply: ModelReply): Record<string, unknown> {
  const usage = reply.usage ?? { input: 10, output: 5 };
  const parts = [
    ...(reply.text === undefined ? [] : [{ text: reply.text }]),
    ...(reply.calls ?? []).map(({ name, input }) => ({ functionCall: { name, args: input } })),
  ];
  return {
    candidates: [{ index: 0, content: { role: "model", parts }, finishReason: "STOP" }],
    usageMetadata: {
      promptTokenCount: usage.input,
      candidatesTokenCount: usage.output,
      totalTokenCount: usage.input + usage.output,
    },
    modelVersion: "scripted-1",
  };
}

interface GeminiBody extends Record<string, unknown> {
  systemInstruction?: { parts?: { text?: string }[] };
  contents?: { role: string; parts?: { text?: string; functionResponse?: unknown }[] }[];
  tools?: { functionDeclarations?: { name: string }[] }[];
}

function geminiRequest(path: string, body: GeminiBody): ModelRequest {
  const parts = body.contents?.at(-1)?.parts ?? [];
  const response = parts.find(({ functionResponse }) => functionResponse !== undefined);
  return {
    api: "gemini",
    model: /models\/([^:]+):/.exec(path)?.[1] ?? "",
    system: textOf(body.systemInstruction?.parts ?? []),
    conversation: JSON.stringify(body.contents ?? []),
    tools: (body.tools ?? []).flatMap(({ functionDeclarations = [] }) =>
      functionDeclarations.map(({ name }) => name),
    ),
    last: response === undefined ? textOf(parts) : JSON.stringify(response.functionResponse),
    isAfterTool: response !== undefined,
    body,
    headers: {},
  };
}

interface AnthropicBody extends Record<string, unknown> {
  model?: string;
  system?: string | { text: string }[];
  messages?: { role: string; content: string | { type: string; text?: string; content?: unknown }[] }[];
  tools?: { name: string }[];
}

function anthropicRequest(body: AnthropicBody): ModelRequest {
  const { system = "", messages = [] } = body;
  const last = messages.at(-1)?.content ?? "";
  const blocks = typeof last === "string" ? [{ type: "text", text: last }] : last;
  const result = blocks.find((block) => block.type === "tool_result");
  return {
    api: "anthropic",
    model: body.model ?? "",
    system: typeof system === "string" ? system : system.map(({ text }) => text).join("\n"),
    conversation: JSON.stringify(messages),
    tools: (body.tools ?? []).map(({ name }) => name),
    last: result === undefined ? blocks.map(({ text }) => text ?? "").join("\n") : textOf(result.content),
    isAfterTool: result !== undefined,
    body,
    headers: {},
  };
}

interface OpenaiBody extends Record<string, unknown> {
  model?: string;
  instructions?: string;
  input?: { type: string; role?: string; content?: unknown; output?: unknown }[];
  tools?: { name?: string; type: string }[];
}

function openaiRequest(body: OpenaiBody): ModelRequest {
  const { input = [] } = body;
  const instructions = input.filter(({ role }) => role === "developer" || role === "system");
  const last = input.at(-1);
  const isAfterTool = last?.type.endsWith("_output") ?? false;
  return {
    api: "openai",
    model: body.model ?? "",
    system: [body.instructions ?? "", ...instructions.map(({ content }) => textOf(content))].join("\n"),
    conversation: JSON.stringify(input),
    tools: (body.tools ?? []).map(({ name, type }) => name ?? type),
    last: textOf(isAfterTool ? last?.output : last?.content),
    isAfterTool,
    body,
    headers: {},
  };
}

function textOf(content: unknown): string {
  if (typeof content === "string") return content;
  if (!Array.isArray(content)) return JSON.stringify(content ?? "");
  return content.map((block) => String((block as { text?: unknown }).text ?? "")).join("\n");
}

/** Reads a request in the dialect of its API. */
export function requestOf(
  api: ModelRequest["api"],
  path: string,
  body: Record<string, unknown>,
): ModelRequest {
  if (api === "anthropic") return anthropicRequest(body);
  return api === "openai" ? openaiRequest(body) : geminiRequest(path, body);
}

/** The answer as a stream, in the dialect of the request. */
export function streamOf(request: ModelRequest, reply: ModelReply): Generator<Step> {
  return request.api === "anthropic" ? anthropicStream(request, reply) : openaiStream(request, reply);
}
