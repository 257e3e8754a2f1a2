/**
 * Conditions in CEL (cel.dev) that people write: bounded in size and cost, judged when they are written, and never able to
 * end a pass. Regular expressions in them take linear time (RE2).
 */
import { type CelInput, celEnv, isCelError, parse, plan } from "@bufbuild/cel";
import { type Parsed, partsOf } from "./expressions.ts";

/** Characters of a condition. */
export const celCharactersMax = 1_000;
/** Parts of a condition: names, constants and calls. */
const partsMax = 250;
/** Loops (`exists`, `all`, `filter`, `map`) that stand within one another: the cost is the list's length to this power. */
const nestingMax = 1;
/** Compiled conditions that are kept, the oldest of which goes first. */
const keptMax = 1_000;

export type Values = Readonly<Record<string, unknown>>;

/** What a condition says of values, or why it can say nothing. */
export type Verdict = { isTrue: boolean } | { problem: string };

export type Condition = { test(values: Values): Verdict };

const env = celEnv();
const kept = new Map<string, Condition | { problem: string }>();

/**
 * Compiles a condition over the named variables; `examples` are values that it is tried with, of which none may show that it has
 * no truth value. The problem is a sentence for whoever wrote it.
 */
export function compile(
  text: string,
  options: { variables: readonly string[]; examples: readonly Values[] },
): Condition | { problem: string } {
  const key = JSON.stringify([options.variables, text]);
  const known = kept.get(key);
  if (known) return known;
  const made = compileAnew(text, options);
  if (kept.size >= keptMax) kept.delete(kept.keys().next().value!);
  kept.set(key, made);
  return made;
}

function compileAnew(
  text: string,
  { variables, examples }: { variables: readonly string[]; examples: readonly Values[] },
): Condition | { problem: string } {
  if (text.length > celCharactersMax) {
    return { problem: `has ${text.length} characters, and may have ${celCharactersMax}` };
  }
  let evaluate: (values: Record<string, CelInput>) => unknown;
  try {
    const expression = parse(text);
    const problem = problemOf(expression.expr, variables);
    if (problem) return { problem };
    evaluate = plan(env, expression) as typeof evaluate;
  } catch (error) {
    return { problem: `cannot be read as CEL: ${wordsOf(error)}` };
  }
  const condition: Condition = {
    test(values) {
      try {
        const result = evaluate(values as Record<string, CelInput>);
        if (isCelError(result)) return { problem: wordsOf(result) };
        if (typeof result !== "boolean")
          return { problem: `is no condition: its value is ${kindOf(result)}` };
        return { isTrue: result };
      } catch (error) {
        return { problem: wordsOf(error) };
      }
    },
  };
  for (const example of examples) {
    const verdict = condition.test(example);
    if ("problem" in verdict && isOwnFault(verdict.problem)) return verdict;
  }
  return condition;
}

/** What no values mend, as opposed to a list that is too short or a key that is absent. */
function isOwnFault(problem: string): boolean {
  return /no condition|overload|unresolved|unknown function/i.test(problem);
}

function wordsOf(error: unknown): string {
  const words =
    error instanceof Error ? error.message : String((error as { message?: unknown }).message ?? error);
  return words.replace(/^<input>:/, "line ").slice(0, 300);
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  if (typeof value === "string") return "a text";
  return typeof value === "number" || typeof value === "bigint" ? "a number" : "no truth value";
}

/** Counts the parts of an expression, and looks whether every name in it is known. */
function problemOf(root: Parsed | undefined, variables: readonly string[]): string | undefined {
  let parts = 0;

  function visit(part: Parsed, names: ReadonlySet<string>, nesting: number): string | undefined {
    parts += 1;
    if (parts > partsMax) return `is too long: it has more than ${partsMax} parts`;
    const kind = part.exprKind;
    if (kind.case === "identExpr" && !names.has(kind.value.name)) {
      return `knows no "${kind.value.name}"; there ${variables.length === 1 ? "is" : "are"} ${variables.join(", ")}`;
    }
    if (kind.case !== "comprehensionExpr") return visitAll(partsOf(part), names, nesting);
    if (nesting >= nestingMax) {
      return "holds a loop within a loop (exists, all, filter, map), which may cost too much";
    }
    const { iterRange, accuInit, loopCondition, loopStep, result, iterVar, iterVar2, accuVar } = kind.value;
    const inner = new Set([...names, iterVar, iterVar2, accuVar]);
    return (
      visitAll([iterRange, accuInit], names, nesting) ??
      visitAll([loopCondition, loopStep, result], inner, nesting + 1)
    );
  }

  function visitAll(
    all: readonly (Parsed | undefined)[],
    names: ReadonlySet<string>,
    nesting: number,
  ): string | undefined {
    for (const part of all) {
      const problem = part && visit(part, names, nesting);
      if (problem) return problem;
    }
    return undefined;
  }

  return root && visit(root, new Set(variables), 0);
}
