import { AttentionReason, PlanStepStatus, ToolKind, ToolStatus } from "../../gen/pinion/v1/activity_pb.js";
import type { ChildEnd } from "../../runner/child.ts";
import { retryAfterOf } from "../retry-later.ts";
import { type AgentDriver, type AgentHost, type Dialogue, endInWords, type TurnEnd } from "./driver.ts";
import { at, type Line, listAt, numberAt, objectOf, textAt } from "./lines.ts";

/**
 * Driver of Codex by `codex exec --json`: one program per turn. A later turn continues the session
 * by `codex exec resume`. Settings are passed as `-c` overrides of the configuration.
 */
export const openCodex: AgentDriver = async (host) => {
  const overrides = overridesOf(host);
  const env = tokensOf(host);
  const schema =
    host.task.schema === undefined
      ? undefined
      : await host.file("schema.json", JSON.stringify(strict(host.task.schema)));
  return new CodexSession(host, { overrides, env, schema });
};

/** Environment variables with the tokens of MCP servers: other users can read arguments. */
const tokenVariable = (place: number) => `PINION_MCP_TOKEN_${place}`;

function tokensOf({ task }: AgentHost): Record<string, string> {
  return Object.fromEntries(
    task.mcpServers.flatMap(({ bearerToken }, place) =>
      bearerToken === undefined ? [] : [[tokenVariable(place), bearerToken]],
    ),
  );
}

function overridesOf({ task, executor, cwd }: AgentHost): string[] {
  const settings: string[] = [];
  const set = (key: string, value: string) => settings.push("-c", `${key}=${value}`);
  if (task.systemPrompt !== "") set("developer_instructions", tomlString(task.systemPrompt));
  const model = task.model || executor.model;
  if (model) settings.push("-m", model);
  for (const [place, { name, url, bearerToken }] of task.mcpServers.entries()) {
    const key = `mcp_servers.${tomlKey(name)}`;
    set(`${key}.url`, tomlString(url));
    if (bearerToken !== undefined) set(`${key}.bearer_token_env_var`, tomlString(tokenVariable(place)));
    for (const tool of task.approvedTools) {
      const [, server, toolName] = /^mcp__(.+?)__(.+)$/.exec(tool) ?? [];
      if (server === name && toolName !== undefined) {
        set(`${key}.tools.${tomlKey(toolName)}.approval_mode`, tomlString("approve"));
      }
    }
  }
  if (executor.permissions === "bypass" && task.allowedHosts === undefined) {
    settings.push("--dangerously-bypass-approvals-and-sandbox");
    return settings;
  }
  // Codex cannot ask a person here: calls outside the sandbox fail, and the agent sees the error.
  set("approval_policy", tomlString("never"));
  set("sandbox_mode", tomlString(executor.codex.sandbox));
  set(`projects.${tomlKey(cwd)}.trust_level`, tomlString("trusted"));
  if (task.allowedHosts !== undefined) {
    // Programs started by the model get no network; the provider's web search is off.
    set("sandbox_workspace_write.network_access", "false");
    set("web_search", tomlString("disabled"));
  }
  return settings;
}

const tomlString = (text: string) => JSON.stringify(text).replaceAll("\u007f", "\\u007f");
const tomlKey = (name: string) => (/^[A-Za-z0-9_-]+$/.test(name) ? name : tomlString(name));

/**
 * OpenAI's structured output requires closed objects and every property; the device validates
 * against the original schema.
 */
function strict(schema: unknown): unknown {
  if (Array.isArray(schema)) return schema.map(strict);
  if (typeof schema !== "object" || schema === null) return schema;
  const copy = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, strict(value)]));
  const { properties } = schema as { properties?: unknown };
  if (typeof properties !== "object" || properties === null) return copy;
  return { ...copy, additionalProperties: false, required: Object.keys(properties) };
}

const KIND_OF_ITEM: Record<string, ToolKind> = {
  command_execution: ToolKind.EXECUTE,
  file_change: ToolKind.EDIT,
  mcp_tool_call: ToolKind.MCP,
  web_search: ToolKind.SEARCH,
  image_view: ToolKind.READ,
  collab_tool_call: ToolKind.THINK,
};

class CodexSession {
  readonly #host: AgentHost;
  readonly #setup: { overrides: string[]; env: Record<string, string>; schema: string | undefined };
  #dialogue: Dialogue | undefined;
  #last: ChildEnd | undefined;
  #threadId: string | undefined;
  /** Use of earlier turns of this attempt: each program counts from 0. */
  #usedBefore = { input: 0, output: 0, cached: 0 };
  #used = { input: 0, output: 0, cached: 0 };
  #turn = { text: "", error: "", isCompleted: false };

  constructor(
    host: AgentHost,
    setup: { overrides: string[]; env: Record<string, string>; schema: string | undefined },
  ) {
    this.#host = host;
    this.#setup = setup;
    this.#threadId = host.task.session?.id;
  }

  async prompt(text: string): Promise<TurnEnd> {
    const host = this.#host;
    const { overrides, env, schema } = this.#setup;
    this.#turn = { text: "", error: "", isCompleted: false };
    this.#usedBefore = this.#used;
    const resumed = this.#threadId;
    const args = [
      "exec",
      ...(resumed === undefined ? [] : ["resume"]),
      "--json",
      "--skip-git-repo-check",
      ...overrides,
      ...(schema === undefined ? [] : ["--output-schema", schema]),
      ...(resumed === undefined ? [] : [resumed]),
      "-",
    ];
    this.#dialogue = host.open({
      args,
      env,
      input: text,
      isInputOnly: true,
      onLine: (line) => this.#line(line),
    });
    const end = await this.#dialogue.ended;
    this.#last = end;
    const { text: answer, error, isCompleted } = this.#turn;
    const problem = error || (isCompleted ? "" : endInWords(host.executor.command[0], end));
    const attention: AttentionReason[] = [];
    if (/max_output_tokens/.test(error)) attention.push(AttentionReason.MAX_TOKENS);
    if (/stream disconnected|before completion/.test(error)) attention.push(AttentionReason.ANSWER_CUT);
    if (/content_filter|refus/i.test(error)) attention.push(AttentionReason.REFUSAL);
    const isDone = isCompleted && error === "";
    const stopReason = isDone ? "completed" : "failed";
    if (isDone) return { isDone, text: answer, stopReason, attention };
    const retryAfterMs = retryAfterOf({ text: problem });
    const isSessionGone =
      resumed !== undefined && /no rollout found|not found|no saved session/i.test(problem);
    return {
      isDone,
      text: answer,
      stopReason,
      attention,
      problem,
      ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
      ...(isSessionGone ? { isSessionGone } : {}),
    };
  }

  async close(): Promise<ChildEnd | undefined> {
    this.#dialogue?.release();
    return this.#last ?? (await this.#dialogue?.ended);
  }

  #line(line: Line): void {
    const message = objectOf(line);
    const type = textAt(message, "type");
    if (message !== undefined && type !== undefined && this.#message(type, message)) return;
    if (line.text.trim() !== "") this.#host.record.raw(line.text);
  }

  #message(type: string, message: Record<string, unknown>): boolean {
    const { record } = this.#host;
    switch (type) {
      case "thread.started":
        this.#threadId = textAt(message, "thread_id") ?? this.#threadId;
        record.sessionId = this.#threadId;
        return true;
      case "turn.started":
        return true;
      case "turn.completed": {
        this.#turn.isCompleted = true;
        const count = (name: string) => numberAt(message, "usage", name) ?? 0;
        const before = this.#usedBefore;
        this.#used = {
          input: before.input + count("input_tokens"),
          output: before.output + count("output_tokens"),
          cached: before.cached + count("cached_input_tokens"),
        };
        const { input, output, cached } = this.#used;
        record.used({ inputTokens: input, outputTokens: output, cachedInputTokens: cached });
        return true;
      }
      case "turn.failed":
        this.#turn.error = textAt(message, "error", "message") ?? (this.#turn.error || "the turn failed");
        return true;
      case "error": {
        const text = textAt(message, "message") ?? "an error";
        // Codex also reports its own reconnects as errors.
        if (/^Reconnecting/i.test(text)) record.note(`codex: ${text}`);
        else this.#turn.error = text;
        return true;
      }
      case "item.started":
      case "item.updated":
      case "item.completed":
        return this.#item(type, at(message, "item"));
      default:
        return false;
    }
  }

  #item(event: string, item: unknown): boolean {
    const { record } = this.#host;
    const id = textAt(item, "id") ?? "";
    const type = textAt(item, "type") ?? "";
    const isOver = event === "item.completed";
    switch (type) {
      case "agent_message":
        if (!isOver) return true;
        this.#turn.text = textAt(item, "text") ?? "";
        record.text(this.#turn.text);
        return true;
      case "reasoning":
        if (isOver) record.thinking(textAt(item, "text") ?? "");
        return true;
      case "todo_list":
        record.plan(
          listAt(item, "items").map((step) => ({
            text: textAt(step, "text") ?? "",
            status: at(step, "completed") === true ? PlanStepStatus.COMPLETED : PlanStepStatus.PENDING,
          })),
        );
        return true;
      case "error":
        record.note(`codex: ${textAt(item, "message") ?? "an error"}`);
        return true;
      case "command_execution":
      case "file_change":
      case "mcp_tool_call":
      case "web_search":
      case "image_view":
      case "collab_tool_call": {
        const status = statusOf(textAt(item, "status"), isOver);
        record.tool({
          // Each program of a session counts its items from 0.
          id: `${this.#threadId ?? ""}/${this.#usedBefore.input}/${id}`,
          name: nameOf(type, item),
          kind: KIND_OF_ITEM[type],
          title: titleOf(type, item),
          status,
          input: inputOf(type, item),
          ...(isOver ? { result: resultOf(type, item) } : {}),
        });
        if (status === ToolStatus.DENIED) {
          record.denied({
            tool: nameOf(type, item),
            input: titleOf(type, item),
            reason: "declined by codex's own rules",
          });
        }
        return true;
      }
      default:
        return false;
    }
  }
}

function statusOf(status: string | undefined, isOver: boolean): ToolStatus {
  if (status === "declined") return ToolStatus.DENIED;
  if (status === "failed") return ToolStatus.FAILED;
  return isOver ? ToolStatus.COMPLETED : ToolStatus.RUNNING;
}

function nameOf(type: string, item: unknown): string {
  if (type !== "mcp_tool_call") return type;
  return `mcp__${textAt(item, "server") ?? "?"}__${textAt(item, "tool") ?? "?"}`;
}

function titleOf(type: string, item: unknown): string {
  if (type === "file_change") {
    return listAt(item, "changes")
      .map((change) => `${textAt(change, "kind") ?? ""} ${textAt(change, "path") ?? ""}`.trim())
      .join(", ");
  }
  if (type === "mcp_tool_call") return nameOf(type, item);
  return textAt(item, "command") ?? textAt(item, "query") ?? textAt(item, "path") ?? type;
}

function inputOf(type: string, item: unknown): unknown {
  if (type === "mcp_tool_call") return at(item, "arguments") ?? "";
  if (type === "file_change") return at(item, "changes") ?? "";
  return textAt(item, "command") ?? textAt(item, "query") ?? "";
}

function resultOf(type: string, item: unknown): unknown {
  if (type === "mcp_tool_call") return at(item, "result") ?? textAt(item, "error", "message") ?? "";
  const code = numberAt(item, "exit_code");
  const output = textAt(item, "aggregated_output") ?? "";
  return code === undefined || code === 0 ? output : `${output}\n(exit code ${code})`;
}
