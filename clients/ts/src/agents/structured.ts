import { Script } from "node:vm";
import type { JsonObject } from "@bufbuild/protobuf";
import { type OutputUnit, type Schema, Validator } from "@cfworker/json-schema";
import { hasCode } from "../device/errors.ts";

/** Bounds of a schema, checked before the compilation. */
const SCHEMA_BYTES_MAX = 65_536;
const SCHEMA_DEPTH_MAX = 32;
/** Bounds on an answer as data, in bytes and levels. From the protocol. */
const ANSWER_BYTES_MAX = 262_144;
const ANSWER_DEPTH_MAX = 30;
const ERRORS_SHOWN_MAX = 12;
const ERROR_CHARACTERS_MAX = 300;
/** Limit of a check in ms: heartbeats wait meanwhile. */
const CHECK_MS_MAX = 500;
const CHECK = Symbol.for("pinion.schema-check");
const CHECKING = new Script('globalThis[Symbol.for("pinion.schema-check")]()');

/** An answer as data, or its errors, for the agent and for people. */
export type Checked = { isValid: true; value: unknown } | { isValid: false; problem: string };

/**
 * Validates an answer against a schema. Never throws: an invalid schema is reported as a problem.
 */
export function checkAnswer(schema: JsonObject, answer: { structured?: unknown; text: string }): Checked {
  // The depth first: the text of a deep value overflows the stack.
  if (
    depthOf(schema, SCHEMA_DEPTH_MAX) > SCHEMA_DEPTH_MAX ||
    JSON.stringify(schema).length > SCHEMA_BYTES_MAX
  ) {
    const bounds = `${SCHEMA_BYTES_MAX / 1024} KiB or nested deeper than ${SCHEMA_DEPTH_MAX}`;
    return { isValid: false, problem: `the watcher's schema is larger than ${bounds}` };
  }
  const found = answer.structured === undefined ? dataOf(answer.text) : { value: answer.structured };
  if (found === undefined) return { isValid: false, problem: "the answer is not JSON" };
  const { value } = found;
  if (
    depthOf(value, ANSWER_DEPTH_MAX) > ANSWER_DEPTH_MAX ||
    Buffer.byteLength(JSON.stringify(value) ?? "") > ANSWER_BYTES_MAX
  ) {
    return {
      isValid: false,
      problem: `the answer is larger than ${ANSWER_BYTES_MAX / 1024} KiB or nested deeper than ${ANSWER_DEPTH_MAX}`,
    };
  }
  try {
    const { valid, errors } = validate(schema, value);
    return valid ? { isValid: true, value } : { isValid: false, problem: inWords(errors) };
  } catch (error) {
    if (hasCode(error, "ERR_SCRIPT_EXECUTION_TIMEOUT")) {
      const problem = `the check against the watcher's schema takes more than ${CHECK_MS_MAX} ms`;
      return { isValid: false, problem };
    }
    return { isValid: false, problem: `the watcher's schema cannot be used: ${String(error)}` };
  }
}

/**
 * Validates within the limit of time: a pattern of the schema may go back for years, and references
 * that fork take as long.
 */
function validate(schema: JsonObject, value: unknown): { valid: boolean; errors: OutputUnit[] } {
  const holder = globalThis as { [CHECK]?: () => { valid: boolean; errors: OutputUnit[] } };
  holder[CHECK] = () => new Validator(schema as Schema, draftOf(schema), false).validate(value);
  try {
    return CHECKING.runInThisContext({ timeout: CHECK_MS_MAX }) as ReturnType<typeof validate>;
  } finally {
    delete holder[CHECK];
  }
}

function draftOf(schema: JsonObject): "4" | "7" | "2019-09" | "2020-12" {
  const { $schema } = schema;
  const named = typeof $schema === "string" ? $schema : "";
  if (named.includes("draft-04")) return "4";
  if (named.includes("draft-07") || named.includes("draft-06")) return "7";
  return named.includes("2019-09") ? "2019-09" : "2020-12";
}

/** Shows the innermost errors: outer errors only say an inner value is invalid. */
function inWords(errors: OutputUnit[]): string {
  const inner = errors.filter(({ keyword }) => !["properties", "items", "allOf", "$ref"].includes(keyword));
  const shown = (inner.length === 0 ? errors : inner).slice(0, ERRORS_SHOWN_MAX);
  const lines = shown.map(({ instanceLocation, error }) => {
    const place = instanceLocation.replace(/^#/, "") || "(the whole)";
    return `${place}: ${error}`.slice(0, ERROR_CHARACTERS_MAX);
  });
  return lines.join("\n");
}

/** Finds JSON in a text: the whole text, the last fenced block, or the only object or list. */
function dataOf(text: string): { value: unknown } | undefined {
  const whole = text.trim();
  const start = whole.search(/[[{]/);
  const end = Math.max(whole.lastIndexOf("}"), whole.lastIndexOf("]"));
  const candidates = [
    whole,
    lastFencedBlock(whole),
    start >= 0 && end > start ? whole.slice(start, end + 1) : undefined,
  ];
  for (const candidate of candidates) {
    if (candidate === undefined || candidate.length > ANSWER_BYTES_MAX) continue;
    try {
      return { value: JSON.parse(candidate) };
    } catch {
      // Try the next candidate.
    }
  }
  return undefined;
}

/**
 * Content of the last closed block between two fences. Line by line: one pattern would go back for
 * years.
 */
function lastFencedBlock(text: string): string | undefined {
  const lines = text.split("\n");
  let start: number | undefined;
  let last: [number, number] | undefined;
  for (const [index, line] of lines.entries()) {
    if (start === undefined) {
      if (/```[a-zA-Z]*$/.test(line.trimEnd())) start = index + 1;
    } else if (line.trimStart().startsWith("```")) {
      last = [start, index];
      start = undefined;
    }
  }
  return last && lines.slice(...last).join("\n");
}

/** Nesting depth of a value, counted up to the bound plus 1. */
function depthOf(value: unknown, depthMax: number): number {
  let level = [value];
  let depth = 0;
  while (level.length > 0 && depth <= depthMax) {
    const inner = level.flatMap((each) =>
      typeof each === "object" && each !== null ? Object.values(each) : [],
    );
    if (inner.length === 0) break;
    level = inner;
    depth += 1;
  }
  return depth;
}
