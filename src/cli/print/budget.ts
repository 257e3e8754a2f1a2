import { create } from "@bufbuild/protobuf";
import { type Budget, BudgetSchema, type Usage } from "#gen/pinion/v1/activity_pb.js";
import { exitCodes, Failure } from "../failures.ts";

/** Budgets and usage as text: "50000" is tokens, "$0.50" a cost, and "50000, $0.50" both. */

const tokensPattern = /^(\d[\d_]*)( tokens)?$/;
const costPattern = /^\$(\d+(?:\.\d{1,6})?)$/;

/** Parses a budget; "" means none. */
export function parseBudget(text: string, option: string): Budget | undefined {
  const parts = text.split(",").map((part) => part.trim());
  if (text.trim() === "") return undefined;
  const budget = create(BudgetSchema);
  for (const part of parts) {
    const tokens = tokensPattern.exec(part)?.[1];
    const cost = costPattern.exec(part)?.[1];
    if (tokens !== undefined) budget.tokensMax = BigInt(tokens.replaceAll("_", ""));
    else if (cost !== undefined) budget.costMicrosMax = microsOf(cost);
    else {
      throw new Failure(
        exitCodes.usage,
        `${option}: "${text}" is no budget; write tokens, a cost, or both: 50000, $0.50`,
      );
    }
  }
  return budget;
}

/** In integers: 0.1 + 0.2 dollars are exactly 300,000 millionths. */
function microsOf(dollars: string): bigint {
  const [whole = "0", fraction = ""] = dollars.split(".");
  return BigInt(whole) * 1_000_000n + BigInt(fraction.padEnd(6, "0"));
}

/** The inverse of parseBudget; "" without a budget. */
export function formatBudget(budget: Budget | undefined): string {
  if (!budget) return "";
  return [
    budget.tokensMax > 0n ? String(budget.tokensMax) : "",
    budget.costMicrosMax > 0n ? formatCost(budget.costMicrosMax) : "",
  ]
    .filter(Boolean)
    .join(", ");
}

/** Formats a cost, "$0.50", with further digits below a cent if needed. */
export function formatCost(micros: bigint): string {
  const fraction = String(micros % 1_000_000n)
    .padStart(6, "0")
    .replace(/0{1,4}$/, "");
  return `$${micros / 1_000_000n}.${fraction}`;
}

/**
 * Formats use, "1,200 in (1,000 cached), 80 out, $0.0042 by the agent's own figure"; "" without
 * data.
 */
export function formatUsage(usage: Usage | undefined): string {
  if (!usage) return "";
  const number = (count: bigint) => count.toLocaleString("en-US");
  const cached = usage.cachedInputTokens ? ` (${number(usage.cachedInputTokens)} cached)` : "";
  const cost =
    usage.costMicros === undefined
      ? ""
      : `${usage.currency === "" || usage.currency === "USD" ? formatCost(usage.costMicros) : `${formatCost(usage.costMicros).slice(1)} ${usage.currency}`} by the agent's own figure`;
  return [
    usage.inputTokens === undefined ? "" : `${number(usage.inputTokens)} tokens in${cached}`,
    usage.outputTokens === undefined ? "" : `${number(usage.outputTokens)} out`,
    cost,
  ]
    .filter(Boolean)
    .join(", ");
}
