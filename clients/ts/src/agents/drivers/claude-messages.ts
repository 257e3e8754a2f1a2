import { AttentionReason, ToolKind } from "../../gen/pinion/v1/activity_pb.js";
import type { TurnEnd } from "./driver.ts";
import { at, isObject, listAt, numberAt, textAt } from "./lines.ts";

/** Attention reasons of Claude's error subtypes. */
const ATTENTION_OF_SUBTYPE: Record<string, AttentionReason> = {
  error_max_turns: AttentionReason.MAX_TURNS,
  error_max_budget_usd: AttentionReason.BUDGET,
  error_max_structured_output_retries: AttentionReason.SCHEMA,
};

const KINDS: Record<string, ToolKind> = {
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

/** The kind of a tool, by Claude's name. */
export function kindOf(tool: string): ToolKind {
  return KINDS[tool] ?? (tool.startsWith("mcp__") ? ToolKind.MCP : ToolKind.OTHER);
}

/** The usage in the message of a result. */
export function usageOf(message: unknown) {
  const [fresh, read, written] = [
    "input_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
  ].map((name) => numberAt(message, "usage", name) ?? 0) as [number, number, number];
  const cost = numberAt(message, "total_cost_usd");
  return {
    inputTokens: fresh + read + written,
    outputTokens: numberAt(message, "usage", "output_tokens"),
    cachedInputTokens: read,
    modelTurns: numberAt(message, "num_turns"),
    ...(cost === undefined ? {} : { cost: { amount: cost, currency: "USD" } }),
  };
}

/** The end of a turn in the message of a result. `apiError`: the last error told before, if any. */
export function endOf(
  message: Record<string, unknown>,
  told: { apiError: string | undefined; hasSchema: boolean },
): TurnEnd {
  const text = textAt(message, "result") ?? "";
  const subtype = textAt(message, "subtype") ?? "";
  const stopReason = textAt(message, "stop_reason") ?? subtype;
  const structured = at(message, "structured_output");
  const isDone = message.is_error !== true && subtype === "success";
  const isDataOnly = told.hasSchema && structured !== undefined && text === "";
  const end: TurnEnd = {
    isDone,
    text: isDataOnly ? JSON.stringify(structured, null, 2) : isDone ? text : "",
    stopReason,
    attention: attentionOf({ subtype, stopReason, apiError: textAt(message, "api_error") ?? told.apiError }),
    ...(structured === undefined ? {} : { structured }),
  };
  if (isDone) return end;
  const errors = listAt(message, "errors").filter((error) => typeof error === "string");
  const problem = text || errors.join("\n") || `claude stopped: ${subtype}`;
  return { ...end, problem, ...(/No conversation found/i.test(problem) ? { isSessionGone: true } : {}) };
}

function attentionOf(end: {
  subtype: string;
  stopReason: string;
  apiError: string | undefined;
}): AttentionReason[] {
  const attention: AttentionReason[] = [];
  const ofSubtype = ATTENTION_OF_SUBTYPE[end.subtype];
  if (ofSubtype !== undefined) attention.push(ofSubtype);
  if (end.stopReason === "refusal") attention.push(AttentionReason.REFUSAL);
  if (end.stopReason === "max_tokens" || end.apiError === "max_output_tokens")
    attention.push(AttentionReason.MAX_TOKENS);
  if (end.apiError === "connection_failed") attention.push(AttentionReason.ANSWER_CUT);
  return attention;
}

/** Claude's suggested rule for "always", in the notation of its settings. */
export function ruleOf(suggestions: unknown): string | undefined {
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
export function titleOf(tool: string, input: unknown): string {
  for (const name of ["command", "file_path", "path", "pattern", "url", "query", "description", "prompt"]) {
    const value = textAt(input, name);
    if (value !== undefined && value !== "") return value;
  }
  return tool;
}

/** The text of a message's content. */
export function textOfBlocks(content: unknown): unknown {
  if (!Array.isArray(content)) return content ?? "";
  return content
    .map((block) => textAt(block, "text") ?? (isObject(block) ? `[${String(block.type)}]` : String(block)))
    .join("\n");
}
