/** JSON values: their greatest depth, and their canonical text. */

export type JsonValue = null | boolean | number | string | JsonValue[] | { [name: string]: JsonValue };

/**
 * The greatest depth of values within values. A level of google.protobuf.Value takes three of the
 * 100 levels that protobuf reads. Usual payloads have about ten levels.
 */
export const inputDepthMax = 30;

/**
 * Whether the value has at most `depthMax` levels. The check is a loop, so a deep value
 * cannot overflow the stack.
 */
export function isShallow(value: JsonValue, depthMax = inputDepthMax): boolean {
  let level: JsonValue[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > depthMax) return false;
    const next: JsonValue[] = [];
    for (const part of level) {
      if (part !== null && typeof part === "object") for (const item of Object.values(part)) next.push(item);
    }
    level = next;
  }
  return true;
}

/** A text without such a part has no number that {@link parseJson} keeps as text. */
const mayHaveOddNumber = /\d{16}|\d[eE]\+?\d{3}/;
/** The texts and the numbers of valid JSON. */
const tokenPattern = /"[^"\\]*(?:\\.[^"\\]*)*"|-?\d[\d.eE+-]*/g;

/**
 * The value of a text; throws a SyntaxError for a text that is no JSON. A number that JavaScript
 * cannot hold (a whole number beyond 2^53, or one beyond 10^308) becomes a text with its digits, as
 * in the JSON of protobuf: rounded, an id would be the id of something else.
 */
export function parseJson(text: string): JsonValue {
  const parsed = JSON.parse(text) as JsonValue;
  if (!mayHaveOddNumber.test(text)) return parsed;
  return JSON.parse(
    text.replace(tokenPattern, (token) => (isOddNumber(token) ? `"${token}"` : token)),
  ) as JsonValue;
}

function isOddNumber(token: string): boolean {
  if (token.startsWith('"')) return false;
  const value = Number(token);
  return !Number.isFinite(value) || (!Number.isSafeInteger(value) && /^-?\d+$/.test(token));
}

/**
 * The text of a value with sorted keys and without spaces, the same for equal values. The value
 * must pass {@link isShallow}.
 */
export function canonicalJson(value: JsonValue): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const entries = Object.entries(value)
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([name, part]) => `${JSON.stringify(name)}:${canonicalJson(part)}`);
  return `{${entries.join(",")}}`;
}
