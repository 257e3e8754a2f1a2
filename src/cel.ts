/**
 * Conditions in CEL (cel.dev) that people write: bounded in size and cost, judged when they are written, and never able to
 * end a pass. Regular expressions in them take linear time (RE2).
 */
import { type CelInput, celEnv, isCelError, parse, plan } from "@bufbuild/cel";

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

type Part = {
  exprKind?: { case?: string | undefined; value?: unknown };
};

/** Counts the parts of an expression, and looks whether every name in it is known. */
function problemOf(root: unknown, variables: readonly string[]): string | undefined {
  let parts = 0;
  const visit = (part: Part | undefined, names: ReadonlySet<string>, nesting: number): string | undefined => {
    if (!part?.exprKind?.case) return undefined;
    parts += 1;
    if (parts > partsMax) return `is too long: it has more than ${partsMax} parts`;
    const { case: kind, value } = part.exprKind;
    const all = (children: readonly (Part | undefined)[]) => {
      for (const child of children) {
        const problem = visit(child, names, nesting);
        if (problem) return problem;
      }
      return undefined;
    };
    switch (kind) {
      case "identExpr": {
        const { name } = value as { name: string };
        return names.has(name)
          ? undefined
          : `knows no "${name}"; there ${variables.length === 1 ? "is" : "are"} ${variables.join(", ")}`;
      }
      case "selectExpr":
        return visit((value as { operand?: Part }).operand, names, nesting);
      case "callExpr": {
        const { target, args } = value as { target?: Part; args: Part[] };
        return all([target, ...args]);
      }
      case "listExpr":
        return all((value as { elements: Part[] }).elements);
      case "structExpr":
        return all(
          (
            value as { entries: { value?: Part; keyKind: { case?: string; value?: unknown } }[] }
          ).entries.flatMap((entry) => [
            entry.keyKind.case === "mapKey" ? (entry.keyKind.value as Part) : undefined,
            entry.value,
          ]),
        );
      case "comprehensionExpr": {
        const loop = value as Record<
          "iterRange" | "accuInit" | "loopCondition" | "loopStep" | "result",
          Part | undefined
        > & { iterVar: string; iterVar2: string; accuVar: string };
        if (nesting >= nestingMax) {
          return "holds a loop within a loop (exists, all, filter, map), which may cost too much";
        }
        const outer = visit(loop.iterRange, names, nesting) ?? visit(loop.accuInit, names, nesting);
        if (outer) return outer;
        const inner = new Set([...names, loop.iterVar, loop.iterVar2, loop.accuVar]);
        return (
          visit(loop.loopCondition, inner, nesting + 1) ??
          visit(loop.loopStep, inner, nesting + 1) ??
          visit(loop.result, inner, nesting + 1)
        );
      }
      default:
        return undefined;
    }
  };
  return visit(root as Part | undefined, new Set(variables), 0);
}
