import {
  type ClientConnection,
  client,
  methods,
  type NewSessionRequest,
  type RequestPermissionRequest,
  type RequestPermissionResponse,
} from "@agentclientprotocol/sdk";
import {
  AttentionReason,
  QuestionOptionKind,
  ToolKind,
  ToolStatus,
} from "../../gen/pinion/v1/activity_pb.js";
import type { ChildEnd } from "../../runner/child.ts";
import { allowedBy, permissionQuestion } from "../permission.ts";
import { schemaPrompt } from "../task.ts";
import { failureOf, SessionGone, wordsOf } from "./acp-errors.ts";
import { argumentsOf, metaOf, modeOf } from "./acp-presets.ts";
import { lineStream } from "./acp-stream.ts";
import { AcpUpdates, KINDS } from "./acp-updates.ts";
import { type AgentDriver, type AgentHost, type Dialogue, endInWords, type TurnEnd } from "./driver.ts";
import { at, isObject, listAt, textAt } from "./lines.ts";

/** Version of the Agent Client Protocol used here. */
const PROTOCOL_VERSION = 1;
/**
 * Time limit of the handshake and of opening a session, in ms; a first start may download packages.
 */
const OPENING_MS = 120_000;
/** Time for an agent to close its session at the end, in ms. */
const SETTLE_MS = 2_000;
const OPTION_KINDS: Record<string, QuestionOptionKind> = {
  allow_once: QuestionOptionKind.ALLOW_ONCE,
  allow_always: QuestionOptionKind.ALLOW_ALWAYS,
  reject_once: QuestionOptionKind.DENY_ONCE,
  reject_always: QuestionOptionKind.DENY_ALWAYS,
};
const ATTENTION: Record<string, AttentionReason> = {
  max_tokens: AttentionReason.MAX_TOKENS,
  max_turn_requests: AttentionReason.MAX_TURNS,
  refusal: AttentionReason.REFUSAL,
};

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
  readonly #updates: AcpUpdates;
  #openingProblem: TurnEnd | undefined;
  #ownSystemPrompt = false;
  #isFirst = true;

  constructor(host: AgentHost) {
    this.#host = host;
    this.#updates = new AcpUpdates(host.record);
    const { stream, onLine, attach } = lineStream(host.record.raw.bind(host.record));
    this.#dialogue = host.open({ args: argumentsOf(host), onLine });
    attach(this.#dialogue);
    this.#gone = this.#dialogue.ended.then((end) => {
      throw new Error(endInWords(host.executor.command[0], end));
    });
    this.#gone.catch(() => {});
    this.#connection = client({ name: "pinion" })
      .onNotification(methods.client.session.update, ({ params }) => {
        if (!this.#isReplaying) this.#updates.add(params.update);
      })
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
      this.#openingProblem = failureOf(error);
    }
  }

  async prompt(text: string): Promise<TurnEnd> {
    if (this.#openingProblem !== undefined) return this.#openingProblem;
    this.#updates.beginTurn();
    try {
      const end = await this.#ask(methods.agent.session.prompt, {
        sessionId: this.#sessionId,
        prompt: [{ type: "text", text: this.#withInstructions(text) }],
      });
      // Messages sent before the end may still be in the handlers.
      await new Promise((resolve) => setImmediate(resolve));
      const stopReason = textAt(end, "stopReason") ?? "";
      this.#updates.used(at(end, "usage"));
      const attention = ATTENTION[stopReason];
      return {
        isDone: stopReason !== "cancelled",
        text: this.#updates.answer(),
        stopReason,
        attention: attention === undefined ? [] : [attention],
        ...(stopReason === "cancelled" ? { problem: "the agent cancelled its turn" } : {}),
      };
    } catch (error) {
      return failureOf(error);
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

function commandOf(input: unknown): string | undefined {
  const command = at(input, "command") ?? at(input, "cmd");
  if (typeof command === "string") return command;
  // ["/bin/bash", "-lc", "git status"]
  const words = Array.isArray(command) ? command.filter((word) => typeof word === "string") : [];
  if (words.length === 3 && /^-l?c$/.test(words[1] ?? "")) return words[2];
  return words.length === 0 ? undefined : words.join(" ");
}

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms).unref());
