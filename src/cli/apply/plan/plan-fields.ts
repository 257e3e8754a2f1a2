import { canonical } from "../../../store/pg/values/canonical.ts";
import type { KeyPath } from "../file/places.ts";
import { hiddenText, shown, shownServers } from "./shown.ts";
import type { FieldChange } from "./steps.ts";

/** A changed field as the plan shows the field: the file's text, and nothing secret. */
export function change(
  field: string,
  before: unknown,
  after: unknown,
  path: KeyPath,
  templates: ReadonlyMap<string, string>,
): FieldChange {
  const next = shown(after, path, templates);
  // A variable's new place may have held a secret before.
  const old = before !== undefined && next.hasVariable ? hiddenText : before;
  return field === "mcp_servers"
    ? { field, before: shownServers(old), after: shownServers(next.value) }
    : { field, before: old, after: next.value };
}

/** Equal as JSON, with keys in any order. */
export function isSame(a: unknown, b: unknown): boolean {
  return canonical(a) === canonical(b);
}
