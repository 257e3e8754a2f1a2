import { type CelInput, isCelList, isCelMap, isCelUint } from "@bufbuild/cel";
import { inputDepthMax, type JsonValue } from "../values/json.ts";
import type { Sizes } from "./cost.ts";
import { ExpressionError } from "./parsed.ts";

/** A JSON value as a value of CEL; notes the value's sizes. */
export function celOf(value: JsonValue, sizes: Sizes): CelInput {
  sizes.nodes += 1;
  if (typeof value === "string") sizes.characters = Math.max(sizes.characters, value.length);
  if (value === null || typeof value !== "object") return value;
  const entries = Object.entries(value);
  sizes.longest = Math.max(sizes.longest, entries.length);
  if (Array.isArray(value)) return value.map((item) => celOf(item, sizes));
  return new Map(entries.map(([name, item]) => [name, celOf(item, sizes)])) as CelInput;
}

/**
 * A value of an expression as JSON, whose text has at most `bytesMax` bytes; throws an
 * ExpressionError for a larger one, and for what JSON does not have.
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
