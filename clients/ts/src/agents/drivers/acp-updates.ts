import type { SessionNotification } from "@agentclientprotocol/sdk";
import { PlanStepStatus, ToolKind, ToolStatus } from "../../gen/pinion/v1/activity_pb.js";
import { KeptText } from "../kept-text.ts";
import type { AttemptRecord } from "../record.ts";
import { at, isObject, listAt, numberAt, textAt } from "./lines.ts";

/** Bound on an answer in pieces: many times the bound of a completion. */
const ANSWER_CHARACTERS_MAX = 2 * 1024 * 1024;

/** Kinds of tools, by their names in the protocol. */
export const KINDS: Record<string, ToolKind> = {
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
const PLAN_STATUSES: Record<string, PlanStepStatus> = {
  pending: PlanStepStatus.PENDING,
  in_progress: PlanStepStatus.RUNNING,
  completed: PlanStepStatus.COMPLETED,
};

/** A warning of codex-acp about its own configuration, sent as if part of the answer. */
const CODEX_WARNING = /^Model metadata for `[^`]*` not found\./;

type Update = SessionNotification["update"];
type ToolUpdate = Extract<Update, { sessionUpdate: "tool_call" | "tool_call_update" }>;

/** Records the updates of a session, and keeps the answer: the text after the last tool call. */
export class AcpUpdates {
  readonly #record: AttemptRecord;
  /** The agent's last text, in pieces. */
  #answer = new KeptText(ANSWER_CHARACTERS_MAX);
  #messageId: string | undefined;
  #isPrompted = false;

  constructor(record: AttemptRecord) {
    this.#record = record;
  }

  /** A prompt is sent: texts from now on belong to its answer. */
  beginTurn(): void {
    this.#forgetAnswer();
    this.#isPrompted = true;
  }

  answer(): string {
    return this.#answer.text().trim();
  }

  add(update: Update): void {
    switch (update.sessionUpdate) {
      case "agent_message_chunk":
        this.#message(update);
        return;
      case "agent_thought_chunk":
        this.#record.thinking(
          textAt(update, "content", "text") ?? "",
          textAt(update, "messageId") ?? "thought",
        );
        return;
      case "tool_call":
      case "tool_call_update":
        this.#tool(update);
        return;
      case "plan":
        this.#record.plan(
          listAt(update, "entries").map((entry) => ({
            text: textAt(entry, "content") ?? "",
            status: PLAN_STATUSES[textAt(entry, "status") ?? ""] ?? PlanStepStatus.PENDING,
          })),
        );
        return;
      case "usage_update": {
        const amount = numberAt(update, "cost", "amount");
        if (amount === undefined) return;
        this.#record.used({ cost: { amount, currency: textAt(update, "cost", "currency") ?? "USD" } });
        return;
      }
      default:
        return;
    }
  }

  /** Adds the usage of a turn to the usage of the turns before. */
  used(usage: unknown): void {
    if (usage === undefined || usage === null) return;
    const cached = numberAt(usage, "cachedReadTokens");
    const fresh = numberAt(usage, "inputTokens");
    const before = this.#record.usage;
    const add = (value: number | undefined, earlier: bigint | undefined) =>
      value === undefined ? undefined : value + Number(earlier ?? 0n);
    this.#record.used({
      inputTokens: add(
        fresh === undefined ? undefined : fresh + (cached ?? 0) + (numberAt(usage, "cachedWriteTokens") ?? 0),
        before?.inputTokens,
      ),
      outputTokens: add(numberAt(usage, "outputTokens"), before?.outputTokens),
      cachedInputTokens: add(cached, before?.cachedInputTokens),
    });
  }

  #message(update: Update): void {
    const text = textAt(update, "content", "text") ?? "";
    // An informational message of the agent is no part of the answer.
    const isAboutItself =
      !this.#isPrompted ||
      textAt(update, "_meta", "claudeCode", "kind") === "informational" ||
      CODEX_WARNING.test(text);
    if (isAboutItself) {
      this.#record.note(text);
      return;
    }
    const messageId = textAt(update, "messageId") ?? this.#messageId ?? "message";
    if (messageId !== this.#messageId) this.#answer = new KeptText(ANSWER_CHARACTERS_MAX);
    this.#messageId = messageId;
    this.#answer.add(text);
    this.#record.text(text, messageId);
  }

  #tool(update: ToolUpdate): void {
    // A tool call ends the previous text, also for agents without message ids.
    if (update.sessionUpdate === "tool_call") this.#forgetAnswer();
    const status = STATUSES[textAt(update, "status") ?? ""];
    const isOver = status === ToolStatus.COMPLETED || status === ToolStatus.FAILED;
    const input = at(update, "rawInput");
    const result = resultOf(update);
    this.#record.tool({
      id: update.toolCallId,
      name: textAt(update, "name") ?? textAt(update, "_meta", "claudeCode", "toolName"),
      kind: KINDS[textAt(update, "kind") ?? ""],
      title: textAt(update, "title"),
      status,
      input: isEmpty(input) ? undefined : input,
      ...(isOver && !isEmpty(result) ? { result } : {}),
    });
  }

  #forgetAnswer(): void {
    this.#answer = new KeptText(ANSWER_CHARACTERS_MAX);
    this.#messageId = undefined;
  }
}

function resultOf(update: ToolUpdate): unknown {
  const raw = at(update, "rawOutput");
  const content = listAt(update, "content")
    .map((block) => textAt(block, "content", "text") ?? textAt(block, "path") ?? "")
    .filter((text) => text !== "")
    .join("\n");
  return textAt(raw, "formatted_output") ?? textAt(raw, "aggregated_output") ?? raw ?? content;
}

const isEmpty = (value: unknown) =>
  value === undefined ||
  value === null ||
  value === "" ||
  (isObject(value) && Object.keys(value).length === 0);
