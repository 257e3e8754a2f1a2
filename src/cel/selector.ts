/** Selectors of watchers: conditions in CEL over the facts about a device. */

import type { Facts } from "../values/labels.ts";
import type { Limits } from "./check.ts";
import { compile, ExpressionError } from "./expression.ts";

const names = ["os", "arch", "labels"] as const;

/** A device has few labels: with one loop and 250 parts every evaluation is cheap. */
const limits: Limits = {
  charactersMax: 1_000,
  partsMax: 250,
  loopsMax: 1,
  costMax: Number.POSITIVE_INFINITY,
  patternUnitsMax: 500_000,
};

/** A device with labels and a device without. A selector must have a truth value on both. */
const examples: readonly Facts[] = [
  { os: "macos", arch: "arm64", labels: [] },
  { os: "linux", arch: "x64", labels: ["gpu", "has:codex", "workspace:web"] },
];

/** The reason why a text is not a selector, as a sentence; undefined for a selector. */
export function selectorProblem(text: string): string | undefined {
  try {
    compile(text, names, limits);
  } catch (error) {
    if (error instanceof ExpressionError) return error.message;
    throw error;
  }
  return examples.map((facts) => verdictOf(text, facts)).find(isOwnFault);
}

/** Whether a device matches. A device on whose facts the selector fails does not match. */
export function matches(selector: string, facts: Facts): boolean {
  return verdictOf(selector, facts) === true;
}

/** The truth value, or a problem. */
function verdictOf(selector: string, facts: Facts): boolean | string {
  try {
    const value = compile(selector, names, limits).evaluate(facts);
    return typeof value === "boolean" ? value : `it is no condition: its value is ${kindOf(value)}`;
  } catch (error) {
    if (error instanceof ExpressionError) return error.message;
    throw error;
  }
}

/** A problem on all facts, in contrast to a list that is too short or a key that is absent. */
function isOwnFault(verdict: boolean | string): verdict is string {
  return typeof verdict === "string" && /no condition|overload|unresolved|unknown function/i.test(verdict);
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (typeof value === "string") return "a text";
  return typeof value === "number" || typeof value === "bigint" ? "a number" : "no truth value";
}
