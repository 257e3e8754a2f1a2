import { randomUUID } from "node:crypto";
import type { GivenAnswer } from "../../device/attempts/questions.ts";
import { AttentionReason, ToolStatus } from "../../gen/pinion/v1/activity_pb.js";
import { choiceQuestion, permissionQuestion } from "../permission.ts";
import { retryAfterOf } from "../retry-later.ts";
import { endOf, kindOf, ruleOf, textOfBlocks, titleOf, usageOf } from "./claude-messages.ts";
import { argumentsOf } from "./claude-start.ts";
import { type AgentDriver, type AgentHost, type Dialogue, endInWords, type TurnEnd } from "./driver.ts";
import { at, isObject, type Line, listAt, numberAt, objectOf, textAt } from "./lines.ts";

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
            kind: kindOf(name),
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
    record.used(usageOf(message));
    for (const denial of listAt(message, "permission_denials")) {
      record.denied({
        tool: textAt(denial, "tool_name") ?? "?",
        input: at(denial, "tool_input") ?? "",
        reason: "not permitted",
      });
    }
    const end = endOf(message, { apiError: this.#apiError, hasSchema: task.schema !== undefined });
    if (end.isDone) {
      this.#settle(end);
      return;
    }
    const retryAfterMs = this.#retryAfter(end.problem ?? "", numberAt(message, "api_error_status"));
    this.#settle({ ...end, ...(retryAfterMs === undefined ? {} : { retryAfterMs }) });
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
      kind: kindOf(tool),
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
