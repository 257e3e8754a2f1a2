import {
  type AnyMessage,
  type ClientConnection,
  client,
  methods,
  type NewSessionRequest,
  RequestError,
  type RequestPermissionRequest,
  type RequestPermissionResponse,
  type SessionNotification,
  type Stream,
} from "@agentclientprotocol/sdk";
import {
  AttentionReason,
  PlanStepStatus,
  QuestionOptionKind,
  ToolKind,
  ToolStatus,
} from "../gen/pinion/v1/activity_pb.js";
import type { ChildEnd } from "../runner/child.ts";
import { type AgentDriver, type AgentHost, type Dialogue, endInWords, type TurnEnd } from "./driver.ts";
import { KeptText } from "./kept-text.ts";
import { at, isObject, type Line, listAt, numberAt, objectOf, textAt } from "./lines.ts";
import { allowedBy, permissionQuestion } from "./permission.ts";
import { retryAfterOf } from "./retry-later.ts";
import { fenced } from "./task.ts";

/** Version of the Agent Client Protocol used here. */
const PROTOCOL_VERSION = 1;
/**
 * Time limit of the handshake and of opening a session, in ms; a first start may download packages.
 */
const OPENING_MS = 120_000;
/** Time for an agent to close its session at the end, in ms. */
const SETTLE_MS = 2_000;
/** Maximum of unhandled messages; beyond the maximum the agent's output is paused. */
const WAITING_MESSAGES_MAX = 256;
/** Bound on an answer in pieces: many times the bound of a completion. */
const ANSWER_CHARACTERS_MAX = 2 * 1024 * 1024;

const KINDS: Record<string, ToolKind> = {
  read: ToolKind.READ,
  edit: ToolKind.EDIT,
  delete: ToolKind.DELETE,
  move: ToolKind.MOVE,
  search: ToolKind.SEARCH,
  execute: ToolKind.EXECUTE,
  think: ToolKind.THINK,
  fetch: ToolKind.FETCH,
};
const STATUSES: Record<string, ToolStatus> = {
  pending: ToolStatus.PENDING,
  in_progress: ToolStatus.RUNNING,
  completed: ToolStatus.COMPLETED,
  failed: ToolStatus.FAILED,
};
const OPTION_KINDS: Record<string, QuestionOptionKind> = {
  allow_once: QuestionOptionKind.ALLOW_ONCE,
  allow_always: QuestionOptionKind.ALLOW_ALWAYS,
  reject_once: QuestionOptionKind.DENY_ONCE,
  reject_always: QuestionOptionKind.DENY_ALWAYS,
};
const PLAN_STATUSES: Record<string, PlanStepStatus> = {
  pending: PlanStepStatus.PENDING,
  in_progress: PlanStepStatus.RUNNING,
  completed: PlanStepStatus.COMPLETED,
};
const ATTENTION: Record<string, AttentionReason> = {
  max_tokens: AttentionReason.MAX_TOKENS,
  max_turn_requests: AttentionReason.MAX_TURNS,
  refusal: AttentionReason.REFUSAL,
};

/** A warning of codex-acp about its own configuration, sent as if part of the answer. */
const CODEX_WARNING = /^Model metadata for `[^`]*` not found\./;

/** Driver of any agent with the Agent Client Protocol on standard input and output. */
export const openAcp: AgentDriver = async (host) => {
  const session = new AcpSession(host);
  await session.open();
  return session;
};

class AcpSession {
  readonly #host: AgentHost;
  readonly #dialogue: Dialogue;
  readonly #connection: ClientConnection;
  /** Rejects at the end of the program: pending requests then get no answer. */
  readonly #gone: Promise<never>;
  #sessionId = "";
  #isReplaying = false;
  /** The agent's last text, in pieces. The answer is the text after the last tool call. */
  #answer = new KeptText(ANSWER_CHARACTERS_MAX);
  #messageId: string | undefined;
  #openingProblem: TurnEnd | undefined;
  #ownSystemPrompt = false;
  #isFirst = true;
  #isPrompted = false;

  constructor(host: AgentHost) {
    this.#host = host;
    const { stream, onLine, attach } = lineStream(host.record.raw.bind(host.record));
    this.#dialogue = host.open({ args: argumentsOf(host), onLine });
    attach(this.#dialogue);
    this.#gone = this.#dialogue.ended.then((end) => {
      throw new Error(endInWords(host.executor.command[0], end));
    });
    this.#gone.catch(() => {});
    this.#connection = client({ name: "pinion" })
      .onNotification(methods.client.session.update, ({ params }) => this.#update(params))
      .onRequest(methods.client.session.requestPermission, ({ params, signal }) =>
        this.#permission(params, signal),
      )
      .connect(stream);
  }

  /**
   * Initializes the agent and opens the session. An error here becomes the end of the first turn.
   */
  async open(): Promise<void> {
    const { task, cwd, executor, record } = this.#host;
    try {
      const hello = await this.#request(methods.agent.initialize, {
        protocolVersion: PROTOCOL_VERSION,
        clientCapabilities: { fs: { readTextFile: false, writeTextFile: false }, terminal: false },
        clientInfo: { name: "pinion", title: "Pinion", version: "1" },
      });
      const takesHttp = at(hello, "agentCapabilities", "mcpCapabilities", "http") === true;
      const mcpServers = takesHttp
        ? task.mcpServers.map(({ name, url, bearerToken }) => ({
            type: "http" as const,
            name,
            url,
            headers:
              bearerToken === undefined ? [] : [{ name: "Authorization", value: `Bearer ${bearerToken}` }],
          }))
        : [];
      if (!takesHttp && task.mcpServers.length > 0) {
        record.note(
          "the agent takes no MCP servers over HTTP: it has none of those that were configured",
          AttentionReason.NOT_ENFORCED,
        );
      }
      const setup: NewSessionRequest = { cwd, mcpServers, ...metaOf(this.#host) };
      this.#ownSystemPrompt = setup._meta !== undefined || executor.preset === "codex-acp";
      const opened = await this.#openSession(hello, setup);
      this.#sessionId = textAt(opened, "sessionId") ?? this.#sessionId;
      record.sessionId = this.#sessionId;
      await this.#configure(opened);
    } catch (error) {
      this.#openingProblem = this.#failure(error);
    }
  }

  async prompt(text: string): Promise<TurnEnd> {
    if (this.#openingProblem !== undefined) return this.#openingProblem;
    this.#answer = new KeptText(ANSWER_CHARACTERS_MAX);
    this.#messageId = undefined;
    this.#isPrompted = true;
    try {
      const end = await this.#ask(methods.agent.session.prompt, {
        sessionId: this.#sessionId,
        prompt: [{ type: "text", text: this.#withInstructions(text) }],
      });
      // Messages sent before the end may still be in the handlers.
      await new Promise((resolve) => setImmediate(resolve));
      const stopReason = textAt(end, "stopReason") ?? "";
      this.#usage(at(end, "usage"));
      const attention = ATTENTION[stopReason];
      return {
        isDone: stopReason !== "cancelled",
        text: this.#answer.text().trim(),
        stopReason,
        attention: attention === undefined ? [] : [attention],
        ...(stopReason === "cancelled" ? { problem: "the agent cancelled its turn" } : {}),
      };
    } catch (error) {
      return this.#failure(error);
    }
  }

  async close(): Promise<ChildEnd> {
    if (this.#sessionId !== "" && !this.#host.signal.aborted) {
      const closing = this.#connection.agent
        .request(methods.agent.session.close, { sessionId: this.#sessionId })
        .catch(() => {});
      await Promise.race([closing, this.#dialogue.ended, wait(SETTLE_MS)]);
    }
    this.#dialogue.release();
    const end = await this.#dialogue.ended;
    this.#connection.close();
    return end;
  }

  async #openSession(hello: unknown, setup: NewSessionRequest): Promise<unknown> {
    const { session } = this.#host.task;
    const capabilities = at(hello, "agentCapabilities");
    if (session === undefined) return this.#request(methods.agent.session.new, setup);
    const canResume = isObject(at(capabilities, "sessionCapabilities", "resume"));
    const canLoad = at(capabilities, "loadSession") === true;
    const asked = { ...setup, sessionId: session.id };
    this.#sessionId = session.id;
    try {
      // Updates during a resume or load repeat the past and are no activities of this attempt.
      this.#isReplaying = true;
      if (canResume) return await this.#request(methods.agent.session.resume, asked);
      if (canLoad) return await this.#request(methods.agent.session.load, asked);
      throw new Error("this agent cannot go on in a session");
    } catch (error) {
      throw new SessionGone(wordsOf(error));
    } finally {
      this.#isReplaying = false;
    }
  }

  /** Sets the model and the mode, if the agent allows a choice. */
  async #configure(opened: unknown): Promise<void> {
    const { task, executor, record } = this.#host;
    const options = listAt(opened, "configOptions");
    const choose = async (category: string, wanted: string): Promise<boolean> => {
      const option = options.find(
        (each) => textAt(each, "category") === category || textAt(each, "id") === category,
      );
      const configId = textAt(option, "id");
      if (configId === undefined) return false;
      const known = listAt(option, "options").flatMap((each) => [each, ...listAt(each, "options")]);
      const match = known.find((each) => [textAt(each, "value"), textAt(each, "name")].includes(wanted));
      const value = textAt(match, "value") ?? wanted;
      if (textAt(option, "currentValue") === value) return true;
      await this.#request(methods.agent.session.setConfigOption, {
        sessionId: this.#sessionId,
        configId,
        value,
      });
      return true;
    };
    const model = task.model || executor.model;
    if (model) {
      const isSet =
        executor.preset === "claude-agent-acp" || (await choose("model", model).catch(() => false));
      if (isSet) record.modelUsed = model;
      else
        record.note(
          `the agent does not take the model "${model}"; it uses its own`,
          AttentionReason.NOT_ENFORCED,
        );
    } else {
      record.modelUsed = textAt(
        options.find((each) => textAt(each, "category") === "model"),
        "currentValue",
      );
    }
    const mode = modeOf(executor.preset, executor.permissions) ?? executor.acp.mode;
    if (mode !== undefined && !(await choose("mode", mode).catch(() => false))) {
      await this.#request(methods.agent.session.setMode, { sessionId: this.#sessionId, modeId: mode }).catch(
        (error: unknown) => record.note(`the agent does not take the mode "${mode}": ${wordsOf(error)}`),
      );
    }
  }

  /**
   * An agent without a system prompt gets its instructions and the schema with the first prompt.
   */
  #withInstructions(text: string): string {
    const { task } = this.#host;
    if (!this.#isFirst) return text;
    this.#isFirst = false;
    const parts = [text];
    if (task.systemPrompt !== "" && !this.#ownSystemPrompt) parts.unshift(task.systemPrompt);
    if (task.schema !== undefined) parts.push(schemaPrompt(task.schema));
    return parts.join("\n\n");
  }

  #request(method: string, params: unknown): Promise<unknown> {
    const answer = this.#ask(method, params);
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new Error(`no answer to ${method} within ${OPENING_MS} ms`)),
        OPENING_MS,
      );
    });
    return Promise.race([answer, late]).finally(() => clearTimeout(timer));
  }

  #ask(method: string, params: unknown): Promise<unknown> {
    const answer = this.#connection.agent.request(method, params);
    answer.catch(() => {});
    return Promise.race([answer, this.#gone]);
  }

  #failure(error: unknown): TurnEnd {
    const problem = wordsOf(error);
    const kind = error instanceof RequestError ? textAt(error.data, "errorKind") : undefined;
    const status =
      error instanceof RequestError
        ? numberAt(error.data, "codex_error_info", "response_too_many_failed_attempts", "http_status_code")
        : undefined;
    const text = kind === "rate_limit" ? `${problem} rate limit` : problem;
    // Some agents tell the time in the error's data alone.
    const data = error instanceof RequestError ? JSON.stringify(error.data ?? "").slice(0, 10_000) : "";
    const isLimit = retryAfterOf({ text, status }) !== undefined;
    const retryAfterMs = isLimit ? retryAfterOf({ text: `${text} ${data}`, status }) : undefined;
    return {
      isDone: false,
      text: "",
      stopReason: "error",
      attention: /refus|safeguards flagged/i.test(problem) ? [AttentionReason.REFUSAL] : [],
      problem,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
      ...(error instanceof SessionGone ? { isSessionGone: true } : {}),
    };
  }

  #update({ update }: SessionNotification): void {
    if (this.#isReplaying) return;
    const { record } = this.#host;
    switch (update.sessionUpdate) {
      case "agent_message_chunk": {
        const text = textAt(update, "content", "text") ?? "";
        // An informational message of the agent is no part of the answer.
        const isAboutItself =
          !this.#isPrompted ||
          textAt(update, "_meta", "claudeCode", "kind") === "informational" ||
          CODEX_WARNING.test(text);
        if (isAboutItself) {
          record.note(text);
          return;
        }
        const messageId = textAt(update, "messageId") ?? this.#messageId ?? "message";
        if (messageId !== this.#messageId) this.#answer = new KeptText(ANSWER_CHARACTERS_MAX);
        this.#messageId = messageId;
        this.#answer.add(text);
        record.text(text, messageId);
        return;
      }
      case "agent_thought_chunk":
        record.thinking(textAt(update, "content", "text") ?? "", textAt(update, "messageId") ?? "thought");
        return;
      case "tool_call":
      case "tool_call_update": {
        // A tool call ends the previous text, also for agents without message ids.
        if (update.sessionUpdate === "tool_call") {
          this.#answer = new KeptText(ANSWER_CHARACTERS_MAX);
          this.#messageId = undefined;
        }
        const status = STATUSES[textAt(update, "status") ?? ""];
        const raw = at(update, "rawOutput");
        const content = listAt(update, "content")
          .map((block) => textAt(block, "content", "text") ?? textAt(block, "path") ?? "")
          .filter((text) => text !== "")
          .join("\n");
        const isOver = status === ToolStatus.COMPLETED || status === ToolStatus.FAILED;
        const result = textAt(raw, "formatted_output") ?? textAt(raw, "aggregated_output") ?? raw ?? content;
        record.tool({
          id: update.toolCallId,
          name: textAt(update, "name") ?? textAt(update, "_meta", "claudeCode", "toolName"),
          kind: KINDS[textAt(update, "kind") ?? ""],
          title: textAt(update, "title"),
          status,
          input: isEmpty(at(update, "rawInput")) ? undefined : at(update, "rawInput"),
          ...(isOver && !isEmpty(result) ? { result } : {}),
        });
        return;
      }
      case "plan":
        record.plan(
          listAt(update, "entries").map((entry) => ({
            text: textAt(entry, "content") ?? "",
            status: PLAN_STATUSES[textAt(entry, "status") ?? ""] ?? PlanStepStatus.PENDING,
          })),
        );
        return;
      case "usage_update": {
        const amount = numberAt(update, "cost", "amount");
        if (amount !== undefined)
          record.used({ cost: { amount, currency: textAt(update, "cost", "currency") ?? "USD" } });
        return;
      }
      default:
        return;
    }
  }

  #usage(usage: unknown): void {
    if (usage === undefined || usage === null) return;
    const cached = numberAt(usage, "cachedReadTokens");
    const fresh = numberAt(usage, "inputTokens");
    const before = this.#host.record.usage;
    const add = (value: number | undefined, earlier: bigint | undefined) =>
      value === undefined ? undefined : value + Number(earlier ?? 0n);
    this.#host.record.used({
      inputTokens: add(
        fresh === undefined ? undefined : fresh + (cached ?? 0) + (numberAt(usage, "cachedWriteTokens") ?? 0),
        before?.inputTokens,
      ),
      outputTokens: add(numberAt(usage, "outputTokens"), before?.outputTokens),
      cachedInputTokens: add(cached, before?.cachedInputTokens),
    });
  }

  async #permission(
    request: RequestPermissionRequest,
    signal: AbortSignal | undefined,
  ): Promise<RequestPermissionResponse> {
    const { task, executor, record } = this.#host;
    const { toolCall, options } = request;
    const tool =
      textAt(toolCall, "name") ??
      textAt(toolCall, "_meta", "claudeCode", "toolName") ??
      textAt(toolCall, "kind") ??
      "?";
    const title = textAt(toolCall, "title") ?? tool;
    const input = at(toolCall, "rawInput") ?? title;
    const pick = (...kinds: string[]) => options.find(({ kind }) => kinds.includes(kind));
    const selected = (optionId: string): RequestPermissionResponse => ({
      outcome: { outcome: "selected", optionId },
    });
    const command = commandOf(input);
    const isApproved = executor.permissions === "bypass" || allowedBy(task.approvedTools, { tool, command });
    const once = pick("allow_once", "allow_always");
    if (isApproved && once !== undefined) return selected(once.optionId);
    const id = toolCall.toolCallId;
    const deny = (reason: string): RequestPermissionResponse => {
      record.denied({ tool, input, reason });
      record.tool({ id, status: ToolStatus.DENIED });
      const refusal = pick("reject_once", "reject_always");
      return refusal === undefined ? { outcome: { outcome: "cancelled" } } : selected(refusal.optionId);
    };
    if (executor.permissions !== "ask")
      return deny("this device asks nobody: what is not pre-approved is denied");
    record.tool({
      id,
      name: tool,
      title,
      kind: KINDS[textAt(toolCall, "kind") ?? ""],
      input,
      status: ToolStatus.PENDING,
    });
    const { question, meaning } = permissionQuestion({
      id,
      tool,
      title: `${tool}: ${title}`,
      text: "",
      kind: KINDS[textAt(toolCall, "kind") ?? ""] ?? ToolKind.OTHER,
      input,
      toolRule: command === undefined ? tool : `${tool}(${command})`,
      options: options.map(({ optionId, name, kind }) => ({
        id: optionId,
        label: name,
        kind: OPTION_KINDS[kind] ?? QuestionOptionKind.OTHER,
      })),
    });
    const answer = await this.#host.ask(question, signal);
    if (this.#host.signal.aborted || signal?.aborted === true) return { outcome: { outcome: "cancelled" } };
    if (meaning(answer) === "allow") return selected(answer.optionId);
    const refusal = deny(answer.isDefault ? "nobody answered in time" : "denied by a person");
    const isOffered = options.some(({ optionId }) => optionId === answer.optionId);
    return isOffered ? selected(answer.optionId) : refusal;
  }
}

/** The session to resume could not be opened. */
class SessionGone extends Error {}

/** Arguments added to the command by a preset. */
function argumentsOf({ executor, task }: AgentHost): string[] {
  if (executor.preset !== "codex-acp") return [];
  const args: string[] = [];
  if (task.systemPrompt !== "")
    args.push("-c", `developer_instructions=${JSON.stringify(task.systemPrompt)}`);
  const model = task.model || executor.model;
  if (model) args.push("-c", `model=${JSON.stringify(model)}`);
  return args;
}

/** Fields of claude-agent-acp beyond the protocol. */
function metaOf({ executor, task }: AgentHost): { _meta?: Record<string, unknown> } {
  if (executor.preset !== "claude-agent-acp") return {};
  const model = task.model || executor.model;
  return {
    _meta: {
      ...(task.systemPrompt === "" ? {} : { systemPrompt: { append: task.systemPrompt } }),
      claudeCode: {
        options: {
          ...(model ? { model } : {}),
          ...(executor.maxTurns === undefined ? {} : { maxTurns: executor.maxTurns }),
          ...(task.approvedTools.length === 0 ? {} : { allowedTools: task.approvedTools }),
        },
      },
    },
  };
}

/**
 * The agent's mode with questions before harmful actions; without a mode an agent may choose
 * another.
 */
function modeOf(preset: string | undefined, permissions: "ask" | "deny" | "bypass"): string | undefined {
  if (preset === "claude-agent-acp") return permissions === "bypass" ? "bypassPermissions" : "default";
  if (preset === "codex-acp") return permissions === "bypass" ? "full-access" : "auto";
  return undefined;
}

export function schemaPrompt(schema: unknown): string {
  return `Your final answer must be JSON that matches this JSON schema, and nothing else: no text around it.\n${fenced(JSON.stringify(schema, null, 2), "json")}`;
}

function commandOf(input: unknown): string | undefined {
  const command = at(input, "command") ?? at(input, "cmd");
  if (typeof command === "string") return command;
  // ["/bin/bash", "-lc", "git status"]
  const words = Array.isArray(command) ? command.filter((word) => typeof word === "string") : [];
  if (words.length === 3 && /^-l?c$/.test(words[1] ?? "")) return words[2];
  return words.length === 0 ? undefined : words.join(" ");
}

const isEmpty = (value: unknown) =>
  value === undefined ||
  value === null ||
  value === "" ||
  (isObject(value) && Object.keys(value).length === 0);

function wordsOf(error: unknown): string {
  if (error instanceof RequestError) {
    const said =
      textAt(error.data, "message") ??
      textAt(error.data, "details") ??
      (typeof error.data === "string" ? error.data : undefined);
    return said === undefined || error.message.includes(said) ? error.message : `${error.message}: ${said}`;
  }
  return error instanceof Error ? error.message : String(error);
}

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms).unref());

/**
 * Turns lines into a stream of JSON-RPC messages; other lines go to `raw`. If the reader falls
 * behind, the program's output is paused.
 */
function lineStream(raw: (text: string) => void): {
  stream: Stream;
  onLine: (line: Line) => void;
  attach: (dialogue: Dialogue) => void;
} {
  let dialogue: Dialogue | undefined;
  let incoming: ReadableStreamDefaultController<AnyMessage> | undefined;
  let isPaused = false;
  const early: AnyMessage[] = [];
  const readable = new ReadableStream<AnyMessage>(
    {
      start: (controller) => {
        incoming = controller;
        for (const message of early) controller.enqueue(message);
      },
      pull: () => {
        if (!isPaused) return;
        isPaused = false;
        dialogue?.resume();
      },
    },
    { highWaterMark: WAITING_MESSAGES_MAX },
  );
  const writable = new WritableStream<AnyMessage>({
    write: (message) => dialogue?.write(JSON.stringify(message)),
    close: () => dialogue?.end(),
  });
  return {
    stream: { readable, writable },
    onLine: (line) => {
      const message = objectOf(line);
      if (message === undefined || message.jsonrpc !== "2.0") {
        if (line.text.trim() !== "") raw(line.text);
        return;
      }
      incoming?.enqueue(message as AnyMessage);
      if ((incoming?.desiredSize ?? 1) <= 0 && !isPaused) {
        isPaused = true;
        dialogue?.pause();
      }
    },
    attach: (opened) => {
      dialogue = opened;
      void opened.ended.then(() => {
        try {
          incoming?.close();
        } catch {
          // The connection has closed the stream already.
        }
      });
    },
  };
}
