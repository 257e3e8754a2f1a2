import { randomUUID } from "node:crypto";
import type { GivenAnswer } from "../device/questions.ts";
import { AttentionReason, ToolKind, ToolStatus } from "../gen/pinion/v1/activity_pb.js";
import { type AgentDriver, type AgentHost, type Dialogue, endInWords, type TurnEnd } from "./driver.ts";
import { at, isObject, type Line, listAt, numberAt, objectOf, textAt } from "./lines.ts";
import { choiceQuestion, permissionQuestion } from "./permission.ts";
import { retryAfterOf } from "./retry-later.ts";

/** Attention reasons of Claude's error subtypes. */
const ATTENTION_OF_SUBTYPE: Record<string, AttentionReason> = {
  error_max_turns: AttentionReason.MAX_TURNS,
  error_max_budget_usd: AttentionReason.BUDGET,
  error_max_structured_output_retries: AttentionReason.SCHEMA,
};

const KIND_OF_TOOL: Record<string, ToolKind> = {
  Read: ToolKind.READ,
  NotebookRead: ToolKind.READ,
  LS: ToolKind.READ,
  Edit: ToolKind.EDIT,
  MultiEdit: ToolKind.EDIT,
  Write: ToolKind.EDIT,
  NotebookEdit: ToolKind.EDIT,
  Glob: ToolKind.SEARCH,
  Grep: ToolKind.SEARCH,
  WebSearch: ToolKind.SEARCH,
  Bash: ToolKind.EXECUTE,
  BashOutput: ToolKind.EXECUTE,
  WebFetch: ToolKind.FETCH,
  Task: ToolKind.THINK,
  Agent: ToolKind.THINK,
};

/** Tools with access to hosts outside the rules. */
const NETWORK_TOOLS = ["SandboxNetworkAccess", "WebFetch", "WebSearch"];

/**
 * Driver of Claude Code by JSON lines in both directions (`claude -p --input-format stream-json
 * --output-format stream-json`), also the protocol of its SDK. Prompts are user messages;
 * permission requests arrive on the output and are answered on the input.
 */
export const openClaudeCode: AgentDriver = async (host) => {
  const session = new ClaudeSession(host, await argumentsOf(host));
  return session;
};

async function argumentsOf(host: AgentHost): Promise<string[]> {
  const { task, executor } = host;
  const args = ["-p", "--input-format", "stream-json", "--output-format", "stream-json", "--verbose"];
  if (executor.permissions === "bypass") args.push("--dangerously-skip-permissions");
  else args.push("--permission-prompt-tool", "stdio", "--permission-mode", executor.claude.permissionMode);
  if (task.systemPrompt !== "") {
    // In files: a prompt may exceed the system's argument limit, and other users can read
    // arguments.
    args.push("--append-system-prompt-file", await host.file("system-prompt.md", task.systemPrompt));
    // A resumed session would otherwise keep its first system prompt.
    if (task.session !== undefined) args.push("--system-prompt-snapshot", "off");
  }
  const model = task.model || executor.model;
  if (model) args.push("--model", model);
  if (task.mcpServers.length > 0) {
    const mcpServers = Object.fromEntries(
      task.mcpServers.map(({ name, url, bearerToken }) => [
        name,
        {
          type: "http",
          url,
          ...(bearerToken === undefined ? {} : { headers: { Authorization: `Bearer ${bearerToken}` } }),
        },
      ]),
    );
    args.push("--mcp-config", await host.file("mcp.json", JSON.stringify({ mcpServers })));
  }
  args.push("--settings", await host.file("settings.json", JSON.stringify(settingsOf(host))));
  // A repository's own settings could open closed hosts, so only the settings of the device's owner
  // apply.
  if (task.allowedHosts !== undefined && task.enforcesEgress) {
    args.push("--setting-sources", "user", "--strict-mcp-config");
  }
  if (task.schema !== undefined) args.push("--json-schema", JSON.stringify(task.schema));
  if (executor.maxTurns !== undefined) args.push("--max-turns", String(executor.maxTurns));
  if (task.budget.costMicrosMax > 0n) {
    args.push("--max-budget-usd", String(Number(task.budget.costMicrosMax) / 1_000_000));
  }
  if (task.session !== undefined) args.push("--resume", task.session.id);
  return args;
}

/** Rules and sandbox settings for this start only. */
function settingsOf({ task }: AgentHost): Record<string, unknown> {
  const allow = [...task.approvedTools];
  const deny: string[] = [];
  const hosts = task.allowedHosts;
  if (hosts === undefined) return { permissions: { allow } };
  // The provider runs the search, with any text chosen by the model.
  deny.push("WebSearch");
  if (hosts.length === 0) deny.push("WebFetch");
  else allow.push(...hosts.map((name) => `WebFetch(domain:${wildcard(name)})`));
  if (!task.enforcesEgress) return { permissions: { allow, deny } };
  return {
    permissions: { allow, deny },
    sandbox: {
      enabled: true,
      failIfUnavailable: true,
      allowUnsandboxedCommands: false,
      autoAllowBashIfSandboxed: false,
      network: {
        allowedDomains: hosts.map(wildcard),
        allowManagedDomainsOnly: false,
        allowLocalBinding: false,
      },
    },
  };
}

/** ".example.org" in Claude's notation. */
const wildcard = (name: string) => (name.startsWith(".") ? `*${name}` : name);

class ClaudeSession {
  readonly #host: AgentHost;
  readonly #dialogue: Dialogue;
  readonly #asking = new Map<string, AbortController>();
  readonly #counted = new Set<string>();
  #inputTokens = 0;
  #outputTokens = 0;
  #turn: ((end: TurnEnd) => void) | undefined;
  #isGone = false;
  #retryDelayMs: number | undefined;
  #resetsAtMs: number | undefined;
  #apiError: string | undefined;

  constructor(host: AgentHost, args: string[]) {
    this.#host = host;
    this.#dialogue = host.open({ args, onLine: (line) => this.#line(line) });
    void this.#dialogue.ended.then((end) => {
      this.#isGone = true;
      for (const asking of this.#asking.values()) asking.abort();
      const problem = endInWords(host.executor.command[0], end);
      const isSessionGone = /No conversation found|session.*not found/i.test(end.stderrTail);
      this.#settle({
        isDone: false,
        text: "",
        stopReason: "",
        attention: [],
        problem,
        ...(isSessionGone ? { isSessionGone } : {}),
      });
    });
  }

  prompt(text: string): Promise<TurnEnd> {
    return new Promise((resolve) => {
      this.#turn = resolve;
      if (this.#isGone) {
        this.#settle({ isDone: false, text: "", stopReason: "", attention: [], problem: "claude is gone" });
        return;
      }
      const message = { type: "user", message: { role: "user", content: text }, parent_tool_use_id: null };
      this.#dialogue.write(JSON.stringify(message));
    });
  }

  async close() {
    this.#dialogue.release();
    return this.#dialogue.ended;
  }

  #settle(end: TurnEnd): void {
    const turn = this.#turn;
    this.#turn = undefined;
    turn?.(end);
  }

  #line(line: Line): void {
    const message = objectOf(line);
    const type = textAt(message, "type");
    const isKnown = message !== undefined && type !== undefined && this.#message(type, message);
    if (!isKnown && line.text.trim() !== "") this.#host.record.raw(line.text);
  }

  /** False for a message unknown to this driver. */
  #message(type: string, message: Record<string, unknown>): boolean {
    switch (type) {
      case "system":
        return this.#system(message);
      case "assistant":
        return this.#assistant(message);
      case "user":
        return this.#user(message);
      case "result":
        this.#result(message);
        return true;
      case "control_request":
        void this.#control(message);
        return true;
      case "control_cancel_request":
        this.#asking.get(textAt(message, "request_id") ?? "")?.abort();
        return true;
      case "rate_limit_event": {
        const resetsAt = numberAt(message, "rate_limit_info", "resetsAt");
        const isRejected = textAt(message, "rate_limit_info", "status") === "rejected";
        if (resetsAt !== undefined && isRejected) this.#resetsAtMs = resetsAt * 1000;
        return true;
      }
      case "control_response":
      case "keep_alive":
      case "stream_event":
      case "tool_progress":
      case "prompt_suggestion":
        return true;
      default:
        return false;
    }
  }

  #system(message: Record<string, unknown>): boolean {
    const { record } = this.#host;
    switch (textAt(message, "subtype")) {
      case "init": {
        record.sessionId = textAt(message, "session_id") ?? record.sessionId;
        record.modelUsed = textAt(message, "model") ?? record.modelUsed;
        for (const server of listAt(message, "mcp_servers")) {
          if (textAt(server, "status") !== "failed") continue;
          record.note(`the MCP server "${textAt(server, "name") ?? "?"}" could not be reached by the agent`);
        }
        return true;
      }
      case "api_retry":
        this.#retryDelayMs = numberAt(message, "retry_delay_ms");
        return true;
      case "model_refusal_no_fallback":
        record.attention.add(AttentionReason.REFUSAL);
        return true;
      case "permission_denied":
        record.denied({
          tool: textAt(message, "tool_name") ?? "?",
          input: at(message, "tool_input") ?? "",
          reason:
            textAt(message, "message") ?? textAt(message, "decision_reason") ?? "denied by the agent's rules",
        });
        return true;
      default:
        // The other subtypes report progress only.
        return true;
    }
  }

  #assistant(message: Record<string, unknown>): boolean {
    const { record } = this.#host;
    const content = at(message, "message", "content");
    if (!Array.isArray(content)) return false;
    const messageId = textAt(message, "message", "id") ?? "";
    this.#count(messageId, message);
    const model = textAt(message, "message", "model");
    if (model !== undefined && !model.startsWith("<")) record.modelUsed = model;
    if (message.is_api_error_message === true) {
      this.#apiError = textAt(message, "api_error") ?? textAt(message, "error");
    }
    for (const [place, block] of content.entries()) {
      switch (textAt(block, "type")) {
        case "text":
          record.text(textAt(block, "text") ?? "");
          break;
        case "thinking":
          record.thinking(textAt(block, "thinking") ?? "", `${messageId}/${place}`);
          break;
        case "tool_use":
        case "server_tool_use":
        case "mcp_tool_use": {
          const name = textAt(block, "name") ?? "?";
          const input = at(block, "input");
          record.tool({
            id: textAt(block, "id") ?? `${messageId}/${place}`,
            name,
            kind: KIND_OF_TOOL[name] ?? (name.startsWith("mcp__") ? ToolKind.MCP : ToolKind.OTHER),
            title: titleOf(name, input),
            status: ToolStatus.RUNNING,
            input,
          });
          break;
        }
        default:
          break;
      }
    }
    return true;
  }

  /**
   * Counts the use so far, for the budget. The input tokens of a message are known on arrival; the
   * output tokens are estimated (about four characters per token) until the result gives the count.
   */
  #count(messageId: string, message: Record<string, unknown>): void {
    const usage = at(message, "message", "usage");
    const read = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"].map(
      (name) => numberAt(usage, name) ?? 0,
    );
    if (!this.#counted.has(messageId)) {
      this.#counted.add(messageId);
      this.#inputTokens += read.reduce((sum, each) => sum + each, 0);
    }
    this.#outputTokens += Math.ceil(JSON.stringify(at(message, "message", "content")).length / 4);
    this.#host.record.used({ inputTokens: this.#inputTokens, outputTokens: this.#outputTokens });
  }

  #user(message: Record<string, unknown>): boolean {
    const content = at(message, "message", "content");
    if (!Array.isArray(content)) return typeof content === "string";
    for (const block of content) {
      const id = textAt(block, "tool_use_id");
      if (textAt(block, "type") !== "tool_result" || id === undefined) continue;
      const meta = listAt(message, "tool_result_meta").find((each) => textAt(each, "id") === id);
      const isDenied = textAt(meta, "permission_decision", "decision") === "reject";
      const isError = at(block, "is_error") === true;
      this.#host.record.tool({
        id,
        status: isDenied ? ToolStatus.DENIED : isError ? ToolStatus.FAILED : ToolStatus.COMPLETED,
        result: textOfBlocks(at(block, "content")),
      });
    }
    return true;
  }

  #result(message: Record<string, unknown>): void {
    const { record, task } = this.#host;
    record.sessionId = textAt(message, "session_id") ?? record.sessionId;
    const [fresh, read, written] = [
      "input_tokens",
      "cache_read_input_tokens",
      "cache_creation_input_tokens",
    ].map((name) => numberAt(message, "usage", name) ?? 0) as [number, number, number];
    const cost = numberAt(message, "total_cost_usd");
    record.used({
      inputTokens: fresh + read + written,
      outputTokens: numberAt(message, "usage", "output_tokens"),
      cachedInputTokens: read,
      modelTurns: numberAt(message, "num_turns"),
      ...(cost === undefined ? {} : { cost: { amount: cost, currency: "USD" } }),
    });
    for (const denial of listAt(message, "permission_denials")) {
      record.denied({
        tool: textAt(denial, "tool_name") ?? "?",
        input: at(denial, "tool_input") ?? "",
        reason: "not permitted",
      });
    }
    const text = textAt(message, "result") ?? "";
    const subtype = textAt(message, "subtype") ?? "";
    const stopReason = textAt(message, "stop_reason") ?? subtype;
    const attention: AttentionReason[] = [];
    const ofSubtype = ATTENTION_OF_SUBTYPE[subtype];
    if (ofSubtype !== undefined) attention.push(ofSubtype);
    if (stopReason === "refusal") attention.push(AttentionReason.REFUSAL);
    const apiError = textAt(message, "api_error") ?? this.#apiError;
    if (stopReason === "max_tokens" || apiError === "max_output_tokens")
      attention.push(AttentionReason.MAX_TOKENS);
    if (apiError === "connection_failed") attention.push(AttentionReason.ANSWER_CUT);
    const structured = at(message, "structured_output");
    const isDone = message.is_error !== true && subtype === "success";
    const isDataOnly = task.schema !== undefined && structured !== undefined && text === "";
    const end: TurnEnd = {
      isDone,
      text: isDataOnly ? JSON.stringify(structured, null, 2) : isDone ? text : "",
      stopReason,
      attention,
      ...(structured === undefined ? {} : { structured }),
    };
    if (isDone) {
      this.#settle(end);
      return;
    }
    const errors = listAt(message, "errors").filter((error) => typeof error === "string");
    const problem = text || errors.join("\n") || `claude stopped: ${subtype}`;
    const isSessionGone = /No conversation found/i.test(problem);
    const retryAfterMs = this.#retryAfter(problem, numberAt(message, "api_error_status"));
    this.#settle({
      ...end,
      problem,
      ...(isSessionGone ? { isSessionGone } : {}),
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    });
  }

  /**
   * Delay before a retry, in ms. Sources in order: the reset time of a rate limit, the provider's
   * requested delay, the text of the message.
   */
  #retryAfter(text: string, status: number | undefined): number | undefined {
    const inWords = retryAfterOf({ text, status });
    if (this.#resetsAtMs !== undefined) return Math.max(1_000, this.#resetsAtMs - Date.now());
    if (inWords === undefined) return undefined;
    return Math.max(inWords, this.#retryDelayMs ?? 0);
  }

  async #control(message: Record<string, unknown>): Promise<void> {
    const requestId = textAt(message, "request_id") ?? "";
    const request = at(message, "request");
    if (textAt(request, "subtype") !== "can_use_tool") {
      this.#respond(requestId, {
        subtype: "error",
        error: `pinion does not know ${textAt(request, "subtype") ?? "this request"}`,
      });
      return;
    }
    const asking = new AbortController();
    this.#asking.set(requestId, asking);
    const decision = await this.#decide(request, asking.signal);
    this.#asking.delete(requestId);
    if (!asking.signal.aborted) this.#respond(requestId, { subtype: "success", response: decision });
  }

  async #decide(request: unknown, signal: AbortSignal): Promise<Record<string, unknown>> {
    const host = this.#host;
    const tool = textAt(request, "tool_name") ?? "?";
    const input = at(request, "input") ?? {};
    const allow = { behavior: "allow", updatedInput: input };
    const toolUseId = textAt(request, "tool_use_id") ?? randomUUID();
    const deny = (reason: string) => {
      host.record.denied({ tool, input, reason });
      host.record.tool({ id: toolUseId, status: ToolStatus.DENIED });
      return { behavior: "deny", message: reason };
    };
    // Only the org's admins may allow another host, in the agent's settings.
    if (host.task.allowedHosts !== undefined && NETWORK_TOOLS.includes(tool)) {
      return deny("the agent's settings in the org do not allow it to connect there");
    }
    if (tool === "AskUserQuestion") return this.#askPerson(toolUseId, input, signal);
    if (host.executor.permissions !== "ask")
      return deny("this device asks nobody: what is not pre-approved is denied");
    const suggestion = ruleOf(at(request, "permission_suggestions"));
    const { question, meaning } = permissionQuestion({
      id: toolUseId,
      tool,
      title: `${tool}: ${titleOf(tool, input)}`,
      text: textAt(request, "description") ?? textAt(request, "decision_reason") ?? "",
      kind: KIND_OF_TOOL[tool] ?? ToolKind.OTHER,
      input,
      toolRule: suggestion ?? tool,
      options: undefined,
    });
    host.record.tool({ id: toolUseId, name: tool, status: ToolStatus.PENDING });
    const answer = await host.ask(question, signal);
    // The agent is gone or has withdrawn its question: no person denied the call.
    if (signal.aborted || host.signal.aborted) return { behavior: "deny", message: "not answered" };
    if (meaning(answer) === "deny") {
      return deny(answer.text || (answer.isDefault ? "nobody answered in time" : "denied by a person"));
    }
    host.record.tool({ id: toolUseId, status: ToolStatus.RUNNING });
    return allow;
  }

  /**
   * Claude's tool for asking a person: each of Claude's questions becomes a question of the run, in
   * sequence.
   */
  async #askPerson(id: string, input: unknown, signal: AbortSignal): Promise<Record<string, unknown>> {
    const { executor, ask, record } = this.#host;
    const answers: Record<string, string> = {};
    for (const [place, asked] of listAt(input, "questions").slice(0, 8).entries()) {
      const text = textAt(asked, "question") ?? "";
      const labels = listAt(asked, "options").map((option) => textAt(option, "label") ?? String(option));
      if (executor.permissions !== "ask" || labels.length === 0) break;
      const { question, chosen } = choiceQuestion({ id: `${id}/${place}`, title: text, labels });
      const answer: GivenAnswer = await ask(question, signal);
      const label = chosen(answer);
      if (label === undefined) break;
      answers[text] = label;
    }
    if (Object.keys(answers).length > 0) {
      return { behavior: "allow", updatedInput: { ...(isObject(input) ? input : {}), answers } };
    }
    record.denied({ tool: "AskUserQuestion", input, reason: "nobody answered" });
    return {
      behavior: "deny",
      message: "Nobody is there to answer. Go on with what you know, and say what you assumed.",
    };
  }

  #respond(requestId: string, response: Record<string, unknown>): void {
    this.#dialogue.write(
      JSON.stringify({ type: "control_response", response: { request_id: requestId, ...response } }),
    );
  }
}

/** Claude's suggested rule for "always", in the notation of its settings. */
function ruleOf(suggestions: unknown): string | undefined {
  for (const suggestion of Array.isArray(suggestions) ? suggestions : []) {
    const [rule] = listAt(suggestion, "rules");
    const tool = textAt(rule, "toolName");
    if (textAt(suggestion, "type") !== "addRules" || tool === undefined) continue;
    const content = textAt(rule, "ruleContent");
    return content === undefined || content === "" ? tool : `${tool}(${content})`;
  }
  return undefined;
}

/** Title of a tool call, from its input. */
function titleOf(tool: string, input: unknown): string {
  for (const name of ["command", "file_path", "path", "pattern", "url", "query", "description", "prompt"]) {
    const value = textAt(input, name);
    if (value !== undefined && value !== "") return value;
  }
  return tool;
}

function textOfBlocks(content: unknown): unknown {
  if (!Array.isArray(content)) return content ?? "";
  return content
    .map((block) => textAt(block, "text") ?? (isObject(block) ? `[${String(block.type)}]` : String(block)))
    .join("\n");
}
