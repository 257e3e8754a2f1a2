/** An agent's use in words. The cost is marked as the agent's own figure. */
import type { Usage } from "#gen/pinion/v1/activity_pb.js";

export function usageText(usage: Usage | undefined): string {
  if (!usage) return "";
  const count = (value: bigint) => value.toLocaleString("en-US");
  const parts = [
    usage.inputTokens === undefined ? "" : `${count(usage.inputTokens)} tokens in`,
    usage.cachedInputTokens ? `${count(usage.cachedInputTokens)} of them cached` : "",
    usage.outputTokens === undefined ? "" : `${count(usage.outputTokens)} out`,
    usage.costMicros === undefined
      ? ""
      : `${costText(usage.costMicros, usage.currency)} by the agent's own figure`,
  ];
  return parts.filter(Boolean).join(", ");
}

/** Formats millionths as an amount: "$0.0042", "0.12 EUR". */
function costText(micros: bigint, currency = "USD"): string {
  const fraction = String(micros % 1_000_000n)
    .padStart(6, "0")
    .replace(/0{1,4}$/, "");
  const amount = `${micros / 1_000_000n}.${fraction}`;
  return currency === "" || currency === "USD" ? `$${amount}` : `${amount} ${currency}`;
}

/** Formats millionths of a dollar: "$4.20", and "$0.004" below a cent. */
export function dollarsText(micros: number): string {
  const dollars = micros / 1_000_000;
  return `$${dollars.toFixed(dollars === 0 || dollars >= 0.01 ? 2 : 4)}`;
}
