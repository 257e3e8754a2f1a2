/**
 * CEL expressions (cel.dev) over JSON: filters and mappings of hooks, conditions of chains,
 * selectors of watchers. An expression is checked when a person stores it: the text can be read,
 * and names only known variables. The cost is bounded before an evaluation: the bound follows from
 * the expression's form and from the sizes of the values, so no expression and no payload blocks
 * the process. Regular expressions take linear time (RE2) and have a budget of their own.
 */
import { type CelInput, isCelError, plan } from "@bufbuild/cel";
import { refuse } from "../errors.ts";
import type { JsonValue } from "../values/json.ts";
import { check, env, type Limits, messageOf, parseText } from "./check.ts";
import { costOf, growthOf, type Sizes } from "./cost.ts";
import { celOf } from "./json.ts";
import { ExpressionError } from "./parsed.ts";
import { withPatterns } from "./patterns.ts";

export { jsonOf } from "./json.ts";
export { ExpressionError } from "./parsed.ts";

/** Maximum steps of one evaluation; a step takes about 1 µs. */
const costMax = 60_000;
/** The wire bounds the characters, and the characters bound the parts. */
const usualLimits: Limits = {
  charactersMax: Number.POSITIVE_INFINITY,
  partsMax: Number.POSITIVE_INFINITY,
  loopsMax: 3,
  costMax,
  patternUnitsMax: 10_000_000,
};
/** Maximum compiled expressions in memory. */
const compiledMax = 1_000;

export type Expression = {
  /** The value; throws an ExpressionError, whose message is for people. */
  evaluate(values: Readonly<Record<string, JsonValue>>): unknown;
};

const compiled = new Map<string, Expression>();

/** The variables of filters and mappings of hooks. */
export const deliveryNames = ["input", "event", "headers"] as const;

/**
 * Compiles an expression; throws an ExpressionError for a text that cannot be read, has variables
 * other than `names`, or exceeds the limits.
 */
export function compile(text: string, names: readonly string[], limits: Limits = usualLimits): Expression {
  const key = JSON.stringify([limits, names, text]);
  const known = compiled.get(key);
  if (known) return known;
  const expression = build(text, names, limits);
  const [oldest] = compiled.keys();
  if (oldest !== undefined && compiled.size >= compiledMax) compiled.delete(oldest);
  compiled.set(key, expression);
  return expression;
}

/** Like {@link compile}; refuses with `invalid_argument` and the field. Empty: undefined. */
export function requireExpression(
  text: string,
  names: readonly string[],
  field: string,
): Expression | undefined {
  if (text.trim() === "") return undefined;
  try {
    return compile(text, names);
  } catch (error) {
    if (!(error instanceof ExpressionError)) throw error;
    refuse("invalid_argument", `${field}: ${error.message}`, { field });
  }
}

function build(text: string, names: readonly string[], limits: Limits): Expression {
  const parsed = parseText(text, limits);
  const { expr } = parsed;
  const run = planOf(parsed);
  check(expr, names, limits);
  const growth = growthOf(expr);
  return {
    evaluate(values) {
      const sizes: Sizes = { longest: 1, nodes: 0, characters: 1 };
      const bindings = Object.fromEntries(names.map((name) => [name, celOf(values[name] ?? null, sizes)]));
      if (limits.costMax < Number.POSITIVE_INFINITY) {
        requireCheap(costOf(expr, { ...sizes, growth }), limits.costMax);
      }
      return withPatterns(limits.patternUnitsMax, () => resultOf(() => run(bindings)));
    },
  };
}

function planOf(parsed: ReturnType<typeof parseText>): (bindings: Record<string, CelInput>) => unknown {
  try {
    return plan(env, parsed) as (bindings: Record<string, CelInput>) => unknown;
  } catch (error) {
    throw new ExpressionError(`it is no CEL expression: ${messageOf(error)}`);
  }
}

function requireCheap(cost: number, max: number): void {
  if (cost <= max) return;
  throw new ExpressionError(
    `it would take up to ${Math.round(cost)} steps over these values, and may take ${max}; loop over less, or not within another loop`,
  );
}

function resultOf(run: () => unknown): unknown {
  let result: unknown;
  try {
    result = run();
  } catch (error) {
    throw new ExpressionError(messageOf(error));
  }
  if (isCelError(result)) throw new ExpressionError(messageOf(result));
  return result;
}
