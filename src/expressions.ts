/**
 * CEL expressions over JSON: filters and mappings of hooks, conditions of chains. An expression is checked when it is written
 * down (it can be read, and names only what there is), and its cost is bounded before it is evaluated: the bound follows from
 * its form and from the sizes of the values, so no expression and no payload holds the process up.
 */
import {
  type CelInput,
  celEnv,
  isCelError,
  isCelList,
  isCelMap,
  isCelUint,
  parse,
  plan,
} from "@bufbuild/cel";
import { refuse } from "./errors.ts";
import { inputDepthMax, type JsonValue } from "./json.ts";

/** Steps that one evaluation may take; one takes about 1 µs. */
const costMax = 60_000;
/** Loops within loops; `.all` within `.all` is 2. */
const loopsMax = 3;
/** Compiled expressions that are kept. */
const compiledMax = 1_000;

export type Expression = {
  /** The value; throws an ExpressionError, whose message is for people. */
  evaluate(values: Readonly<Record<string, JsonValue>>): unknown;
};

export class ExpressionError extends Error {
  override name = "ExpressionError";
}

export type Parsed = ReturnType<typeof parse>["expr"];

const env = celEnv();
const compiled = new Map<string, Expression>();

/** What filters and mappings of hooks name. */
export const deliveryNames = ["input", "event", "headers"] as const;

/** Names of types that an expression may call or compare with. */
const typeNames = new Set(
  "bool bytes double int list map null_type string type uint dyn google timestamp duration".split(" "),
);

/** The expression; throws an ExpressionError for one that cannot be read, or that names something else than `names`. */
export function compile(text: string, names: readonly string[]): Expression {
  const key = `${names.join(" ")}\n${text}`;
  const known = compiled.get(key);
  if (known) return known;
  const expression = build(text, names);
  if (compiled.size >= compiledMax) compiled.delete(compiled.keys().next().value!);
  compiled.set(key, expression);
  return expression;
}

/** As {@link compile}; refuses with `invalid_argument` and the field. Empty: undefined. */
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

function build(text: string, names: readonly string[]): Expression {
  let parsed: ReturnType<typeof parse>;
  let run: (bindings: Record<string, CelInput>) => unknown;
  try {
    parsed = parse(text);
    run = plan(env, parsed) as typeof run;
  } catch (error) {
    throw new ExpressionError(`it is no CEL expression: ${messageOf(error)}`);
  }
  check(parsed.expr, { known: new Set(names), names, loops: 0 });
  return {
    evaluate(values) {
      const sizes: Sizes = { longest: 1, nodes: 0, characters: 1 };
      const bindings = Object.fromEntries(names.map((name) => [name, celOf(values[name] ?? null, sizes)]));
      const cost = costOf(parsed.expr, { ...sizes, growth: growthOf(parsed.expr) });
      if (cost > costMax) {
        throw new ExpressionError(
          `it would take up to ${Math.round(cost)} steps over these values, and may take ${costMax}; loop over less, or not within another loop`,
        );
      }
      let result: unknown;
      try {
        result = run(bindings);
      } catch (error) {
        throw new ExpressionError(messageOf(error));
      }
      if (isCelError(result)) throw new ExpressionError(result.message);
      return result;
    },
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

type Sizes = {
  /** Elements of the longest list or map. */
  longest: number;
  /** Values in all. */
  nodes: number;
  /** Characters of the longest text. */
  characters: number;
};

function celOf(value: JsonValue, sizes: Sizes): CelInput {
  sizes.nodes += 1;
  if (typeof value === "string") sizes.characters = Math.max(sizes.characters, value.length);
  if (value === null || typeof value !== "object") return value;
  const entries = Object.entries(value);
  sizes.longest = Math.max(sizes.longest, entries.length);
  if (Array.isArray(value)) return value.map((item) => celOf(item, sizes));
  return new Map(entries.map(([name, item]) => [name, celOf(item, sizes)])) as CelInput;
}

/** The expressions right below one. */
export function partsOf(expr: Parsed | undefined): Parsed[] {
  const kind = expr?.exprKind;
  const present = (parts: (Parsed | undefined)[]) => parts.filter((part) => part !== undefined);
  switch (kind?.case) {
    case "selectExpr":
      return present([kind.value.operand]);
    case "callExpr":
      return present([kind.value.target, ...kind.value.args]);
    case "listExpr":
      return kind.value.elements;
    case "structExpr":
      return kind.value.entries.flatMap(({ keyKind, value }) =>
        present([keyKind.case === "mapKey" ? keyKind.value : undefined, value]),
      );
    case "comprehensionExpr": {
      const { iterRange, accuInit, loopCondition, loopStep, result } = kind.value;
      return present([iterRange, accuInit, loopCondition, loopStep, result]);
    }
    default:
      return [];
  }
}

/** Names that are not there, and loops that are too deep, are mistakes of whoever writes the expression. */
function check(
  expr: Parsed,
  scope: { known: ReadonlySet<string>; names: readonly string[]; loops: number },
): void {
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
  }
  if (kind.case !== "comprehensionExpr") {
    for (const part of partsOf(expr)) check(part, scope);
    return;
  }
  const { iterRange, accuInit, loopCondition, loopStep, result, iterVar, iterVar2, accuVar } = kind.value;
  if (scope.loops >= loopsMax) throw new ExpressionError(`it loops within loops more than ${loopsMax} deep`);
  for (const part of [iterRange, accuInit]) if (part) check(part, scope);
  const inner = {
    ...scope,
    known: new Set([...scope.known, iterVar, iterVar2, accuVar]),
    loops: scope.loops + 1,
  };
  for (const part of [loopCondition, loopStep, result]) if (part) check(part, inner);
}

function namesText(names: readonly string[]): string {
  const quoted = names.map((name) => `"${name}"`);
  return quoted.length === 1
    ? `is ${quoted[0]}`
    : `are ${quoted.slice(0, -1).join(", ")} and ${quoted.at(-1)}`;
}

/** By how much a list that the expression makes may be longer than any that it is given. */
function growthOf(expr: Parsed): number {
  const kind = expr.exprKind;
  const own =
    kind.case === "listExpr"
      ? kind.value.elements.length
      : kind.case === "structExpr"
        ? kind.value.entries.length
        : kind.case === "callExpr" && kind.value.function === "_+_"
          ? 1
          : 0;
  return partsOf(expr).reduce((sum, part) => sum + growthOf(part), own || 0);
}

type Bounds = Sizes & { growth: number };

/** Calls whose cost does not grow with their operands. */
const cheapCalls = new Set([
  "_&&_",
  "_||_",
  "!_",
  "_?_:_",
  "_[_]",
  "@not_strictly_false",
  "-_",
  "_-_",
  "_%_",
]);

/** An upper bound of the steps that an evaluation takes. */
function costOf(expr: Parsed, bounds: Bounds): number {
  const kind = expr.exprKind;
  const sum = (parts: Parsed[]) => parts.reduce((total, part) => total + costOf(part, bounds), 0);
  if (kind.case === "comprehensionExpr") {
    const { iterRange, accuInit, loopCondition, loopStep, result } = kind.value;
    const once = sum([iterRange, accuInit, result].filter((part) => part !== undefined));
    const each = sum([loopCondition, loopStep].filter((part) => part !== undefined));
    return 1 + once + lengthOf(iterRange, bounds) * each;
  }
  if (kind.case !== "callExpr" || cheapCalls.has(kind.value.function)) return 1 + sum(partsOf(expr));
  const isWithConstant = partsOf(expr).some((part) => part.exprKind.case === "constExpr");
  const isEquality = kind.value.function === "_==_" || kind.value.function === "_!=_";
  const own = isEquality
    ? isWithConstant
      ? 1
      : 1 + bounds.nodes / 10 + bounds.characters / 1_000
    : kind.value.function === "@in"
      ? 1 + lengthOf(kind.value.args[1], bounds)
      : kind.value.function === "_+_"
        ? 1 + (isAccumulating(kind.value.args) ? 0 : bounds.longest / 100 + bounds.characters / 1_000)
        : 1 + bounds.characters / (kind.value.function === "matches" ? 2 : 200);
  return own + sum(partsOf(expr));
}

/** The step of `.map` and `.filter`, which adds one element to the list that it makes. */
function isAccumulating(args: readonly Parsed[]): boolean {
  const [before, added] = args;
  return (
    before?.exprKind.case === "identExpr" &&
    before.exprKind.value.name.startsWith("@") &&
    added?.exprKind.case === "listExpr"
  );
}

function lengthOf(expr: Parsed | undefined, { longest, growth }: Bounds): number {
  if (expr?.exprKind.case === "listExpr") return expr.exprKind.value.elements.length;
  return longest * (growth + 1);
}

/**
 * A value of an expression as JSON, whose text has at most `bytesMax` bytes; throws an ExpressionError for a larger one, and for
 * what JSON does not have.
 */
export function jsonOf(value: unknown, bytesMax: number): JsonValue {
  let left = bytesMax;
  const spend = (bytes: number) => {
    left -= bytes;
    if (left < 0) throw new ExpressionError(`its value has more than ${bytesMax} bytes as JSON`);
  };
  function walk(part: unknown, depth: number): JsonValue {
    if (depth > inputDepthMax)
      throw new ExpressionError(`its value is nested more than ${inputDepthMax} deep`);
    spend(1);
    if (part === null || typeof part === "boolean") return part;
    if (typeof part === "string") {
      // Before anything copies it: a text that was put together is only then made.
      spend(part.length);
      return part;
    }
    if (typeof part === "number") {
      if (!Number.isFinite(part)) throw new ExpressionError(`its value holds ${part}, which JSON has not`);
      return part;
    }
    if (typeof part === "bigint" || isCelUint(part)) {
      const whole = typeof part === "bigint" ? part : part.value;
      if (whole > Number.MAX_SAFE_INTEGER || whole < Number.MIN_SAFE_INTEGER) return String(whole);
      return Number(whole);
    }
    if (part instanceof Uint8Array) {
      spend(part.length * 2);
      return Buffer.from(part).toString("base64");
    }
    if (isCelList(part)) return Array.from(part, (item) => walk(item, depth + 1));
    if (isCelMap(part)) {
      const entries = [...part].map(([name, item]): [string, JsonValue] => {
        if (typeof name !== "string") throw new ExpressionError("its value has a key that is no text");
        spend(name.length + 3);
        return [name, walk(item, depth + 1)];
      });
      return Object.fromEntries(entries);
    }
    throw new ExpressionError("its value holds something that JSON has not; use string(…)");
  }
  return walk(value, 0);
}
