/** JSON as values: how deep it may be, and its one canonical text. */

export type JsonValue = null | boolean | number | string | JsonValue[] | { [name: string]: JsonValue };

/** Values within values: of google.protobuf.Value each takes three of the 100 levels that protobuf reads. Payloads are some ten deep. */
export const inputDepthMax = 30;

/** Whether values lie in one another no deeper than {@link inputDepthMax}. Itself needs no stack, however deep they are. */
export function isShallow(value: JsonValue): boolean {
  let level: JsonValue[] = [value];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > inputDepthMax) return false;
    const next: JsonValue[] = [];
    for (const part of level) {
      if (part !== null && typeof part === "object") for (const item of Object.values(part)) next.push(item);
    }
    level = next;
  }
  return true;
}

/** The text that two equal values have in common: keys in order, no spaces. Of a value that {@link isShallow}. */
export function canonicalJson(value: JsonValue): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const entries = Object.entries(value)
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([name, part]) => `${JSON.stringify(name)}:${canonicalJson(part)}`);
  return `{${entries.join(",")}}`;
}
