import type { parse } from "@bufbuild/cel";

/** An expression of CEL, or a part of one. */
export type Parsed = ReturnType<typeof parse>["expr"];

/** The message is for the author of the expression. */
export class ExpressionError extends Error {
  override name = "ExpressionError";
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
