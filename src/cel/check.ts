import { celEnv, parse } from "@bufbuild/cel";
import { ExpressionError, type Parsed, partsOf } from "./parsed.ts";
import { checkPattern, patternEngine } from "./patterns.ts";

export const env = celEnv({ re2: patternEngine });

/** Names of types that an expression may call or compare with. */
const typeNames = new Set(
  "bool bytes double int list map null_type string type uint dyn google timestamp duration".split(" "),
);

/** The bounds of an expression's text. */
export type Limits = {
  charactersMax: number;
  /** Names, constants and calls. */
  partsMax: number;
  /** Loops (exists, all, filter, map) within loops; `.all` within `.all` is 2. */
  loopsMax: number;
  /** Steps of one evaluation. */
  costMax: number;
  /** Work of all patterns (`matches`) in one evaluation, in units of about 30 ns. */
  patternUnitsMax: number;
};

/** The expression of a text; throws an ExpressionError for a text that cannot be read. */
export function parseText(text: string, { charactersMax }: Limits): ReturnType<typeof parse> {
  if (text.length > charactersMax) {
    throw new ExpressionError(`it has ${text.length} characters, and may have ${charactersMax}`);
  }
  try {
    return parse(text);
  } catch (error) {
    throw new ExpressionError(`it is no CEL expression: ${messageOf(error)}`);
  }
}

export function messageOf(error: unknown): string {
  const words =
    error instanceof Error ? error.message : String((error as { message?: unknown }).message ?? error);
  return words.replace(/^<input>:/, "line ").slice(0, 300);
}

/**
 * Throws an ExpressionError for unknown names and functions, and for an expression beyond its
 * limits.
 */
export function check(expr: Parsed, names: readonly string[], limits: Limits): void {
  const parts = countParts(expr);
  if (parts > limits.partsMax) {
    throw new ExpressionError(`it is too long: it has more than ${limits.partsMax} parts`);
  }
  checkPart(expr, { known: new Set(names), names, loops: 0, loopsMax: limits.loopsMax });
}

const countParts = (expr: Parsed): number => partsOf(expr).reduce((sum, part) => sum + countParts(part), 1);

type Scope = { known: ReadonlySet<string>; names: readonly string[]; loops: number; loopsMax: number };

function checkPart(expr: Parsed, scope: Scope): void {
  const kind = expr.exprKind;
  if (kind.case === "identExpr") {
    const { name } = kind.value;
    if (!scope.known.has(name) && !typeNames.has(name)) {
      throw new ExpressionError(`there is no "${name}"; there ${namesText(scope.names)}`);
    }
  }
  if (kind.case === "callExpr" && /^[A-Za-z]/.test(kind.value.function)) {
    const { function: called } = kind.value;
    if (!env.funcs.find(called)) throw new ExpressionError(`there is no function "${called}"`);
    const pattern = called === "matches" ? kind.value.args.at(-1)?.exprKind : undefined;
    if (pattern?.case === "constExpr" && pattern.value.constantKind.case === "stringValue") {
      checkPattern(pattern.value.constantKind.value);
    }
  }
  if (kind.case !== "comprehensionExpr") {
    for (const part of partsOf(expr)) checkPart(part, scope);
    return;
  }
  const { iterRange, accuInit, loopCondition, loopStep, result, iterVar, iterVar2, accuVar } = kind.value;
  if (scope.loops >= scope.loopsMax) throw new ExpressionError(tooDeepText(scope.loopsMax));
  for (const part of [iterRange, accuInit]) if (part) checkPart(part, scope);
  const inner = {
    ...scope,
    known: new Set([...scope.known, iterVar, iterVar2, accuVar]),
    loops: scope.loops + 1,
  };
  for (const part of [loopCondition, loopStep, result]) if (part) checkPart(part, inner);
}

function tooDeepText(loopsMax: number): string {
  return loopsMax === 1
    ? "it holds a loop within a loop (exists, all, filter, map), which may cost too much"
    : `it loops within loops more than ${loopsMax} deep`;
}

function namesText(names: readonly string[]): string {
  const quoted = names.map((name) => `"${name}"`);
  return quoted.length === 1
    ? `is ${quoted[0]}`
    : `are ${quoted.slice(0, -1).join(", ")} and ${quoted.at(-1)}`;
}
