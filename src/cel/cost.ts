import type { Parsed } from "./parsed.ts";
import { partsOf } from "./parsed.ts";

/** The sizes of the values given to an expression. */
export type Sizes = {
  /** Elements of the longest list or map. */
  longest: number;
  /** Values in all. */
  nodes: number;
  /** Characters of the longest text. */
  characters: number;
};

/** By how much a list that the expression makes may be longer than any that it is given. */
export function growthOf(expr: Parsed): number {
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
export function costOf(expr: Parsed, bounds: Bounds): number {
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
