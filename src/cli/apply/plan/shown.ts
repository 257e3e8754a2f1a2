import { type KeyPath, placeKey } from "../file/places.ts";
import { isTable } from "../file/variables.ts";

/** Text in place of a secret. */
export const hiddenText = "(hidden)";

/** A value of the file for display: the file's text in place of the variables' values. */
export function shown(
  value: unknown,
  path: KeyPath,
  templates: ReadonlyMap<string, string>,
): { value: unknown; hasVariable: boolean } {
  let hasVariable = false;
  const visit = (at: unknown, place: KeyPath): unknown => {
    if (Array.isArray(at)) return at.map((item, index) => visit(item, [...place, index]));
    if (isTable(at)) {
      return Object.fromEntries(Object.entries(at).map(([key, item]) => [key, visit(item, [...place, key])]));
    }
    const template = templates.get(placeKey(place));
    if (template === undefined) return at;
    hasVariable = true;
    return template;
  };
  return { value: visit(value, path), hasVariable };
}

/** MCP servers without the secret parts of their addresses: passwords and queries. */
export function shownServers(value: unknown): unknown {
  if (!Array.isArray(value)) return value;
  return (value as { name: string; url: string }[]).map(({ name, url }) => ({
    name,
    url: url.replace(/^([a-z]+:\/\/)[^/@]*@/i, "$1…@").replace(/\?.*$/, "?…"),
  }));
}
