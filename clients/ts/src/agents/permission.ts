import { create } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import type { GivenAnswer } from "../device/attempts/questions.ts";
import { truncateUtf8 } from "../device/results/completion.ts";
import {
  type Question,
  QuestionOptionKind,
  QuestionSchema,
  type ToolKind,
  ToolStatus,
} from "../gen/pinion/v1/activity_pb.js";

const cut = (text: string, bytesMax: number) => truncateUtf8(text.toWellFormed(), bytesMax).text;

/** Options for agents without options of their own. */
const USUAL_OPTIONS = [
  { id: "allow", label: "Allow once", kind: QuestionOptionKind.ALLOW_ONCE },
  { id: "allow_always", label: "Always allow this", kind: QuestionOptionKind.ALLOW_ALWAYS },
  { id: "deny", label: "Deny", kind: QuestionOptionKind.DENY_ONCE },
];

/** Builds the question about a tool call, and the interpretation of its answer. */
export function permissionQuestion(asked: {
  id: string;
  tool: string;
  title: string;
  text: string;
  kind: ToolKind;
  input: unknown;
  /** Rule added to the agent's pre-approved tools by "always"; empty: none. */
  toolRule: string;
  options: { id: string; label: string; kind: QuestionOptionKind }[] | undefined;
}): { question: Question; meaning(answer: GivenAnswer): "allow" | "deny" } {
  const options = (asked.options ?? USUAL_OPTIONS)
    .slice(0, 16)
    .map(({ id, label, kind }) => ({ id: cut(id, 100) || "?", label: cut(label, 200), kind }));
  const input = truncateUtf8(
    (typeof asked.input === "string" ? asked.input : (JSON.stringify(asked.input) ?? "")).toWellFormed(),
    8_192,
  );
  const question = create(QuestionSchema, {
    id: cut(asked.id, 100) || "?",
    title: cut(asked.title.replaceAll(/\s+/g, " "), 500),
    text: cut(asked.text, 8_192),
    toolCall: {
      id: cut(asked.id, 200) || "?",
      name: cut(asked.tool, 200),
      kind: asked.kind,
      title: cut(asked.title.replaceAll(/\s+/g, " "), 500),
      status: ToolStatus.PENDING,
      input: input.text,
      isInputTruncated: input.isTruncated,
    },
    options,
    toolRule: cut(asked.toolRule, 500),
    askedAt: timestampNow(),
    takesText: asked.options === undefined,
  });
  return {
    question,
    meaning: ({ optionId }) => {
      const kind = options.find(({ id }) => id === optionId)?.kind;
      return kind === QuestionOptionKind.ALLOW_ONCE || kind === QuestionOptionKind.ALLOW_ALWAYS
        ? "allow"
        : "deny";
    },
  };
}

/**
 * True if a rule permits a call. A rule is a tool's name ("Read", "mcp__github__search",
 * "mcp__github" for a whole server) or a name and a command, "Bash(git status)"; the command may
 * end in ":*" or " *" for any arguments. A command with shell operators is permitted by no rule
 * with a command.
 */
export function allowedBy(
  rules: readonly string[],
  call: { tool: string; command: string | undefined },
): boolean {
  return rules.some((rule) => {
    const parts = /^([^()]+?)\s*(?:\((.*)\))?$/s.exec(rule.trim());
    const [, name, pattern] = parts ?? [];
    if (name === undefined) return false;
    const isNamed = call.tool === name || (name.startsWith("mcp__") && call.tool.startsWith(`${name}__`));
    if (!isNamed) return false;
    if (pattern === undefined || pattern === "*") return true;
    if (call.command === undefined || /[;&|`$<>\n\\(){}]/.test(call.command)) return false;
    const prefix = /^(.*?)(?::\*| \*)$/s.exec(pattern)?.[1];
    if (prefix === undefined) return call.command.trim() === pattern.trim();
    return call.command === prefix || call.command.startsWith(`${prefix} `);
  });
}

/** A question with the agent's own options, without permission to give. */
export function choiceQuestion(asked: { id: string; title: string; labels: string[] }): {
  question: Question;
  /** The chosen label or the written text; undefined without an answer. */
  chosen(answer: GivenAnswer): string | undefined;
} {
  const labels = asked.labels.slice(0, 16);
  const question = create(QuestionSchema, {
    id: cut(asked.id, 100) || "?",
    title: cut(asked.title.replaceAll(/\s+/g, " "), 500),
    options: labels.map((label, place) => ({
      id: String(place + 1),
      label: cut(label, 200),
      kind: QuestionOptionKind.OTHER,
    })),
    askedAt: timestampNow(),
    takesText: true,
  });
  return {
    question,
    chosen: ({ optionId, text }) => text || labels[Number(optionId) - 1],
  };
}
