/**
 * The description of an edit in an event: the changed fields, with old and new values. Secrets are
 * masked and long texts cut.
 */

import type { Json } from "../pg/schema/schema-columns.ts";
import { canonical } from "../pg/values/canonical.ts";

/** Maximum characters of a text, enough to recognize its subject; revisions have the whole text. */
const charactersMax = 300;
/** Maximum characters of a whole value, as JSON. */
const valueCharactersMax = 2_000;
const mask = "***";

/** Names that mean a secret. */
const secretName =
  /(^|_|[a-z])(token|secret|password|passwd|api_?key|private_?key|credentials?|authorization)$/i;
const urlPassword = /(:\/\/[^\s/?#@:]*:)[^\s/?#@]+@/g;

/**
 * `changed`: the fields that differ, in the order of `before`; `changes`: their old and new values.
 */
export function describe(
  before: Readonly<Record<string, unknown>>,
  after: Readonly<Record<string, unknown>>,
): { changed: string[]; changes: Json } {
  const fields = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const changed = fields.filter((field) => canonical(before[field]) !== canonical(after[field]));
  const changes = Object.fromEntries(
    changed.map((field) => [field, { from: shown(field, before[field]), to: shown(field, after[field]) }]),
  );
  return { changed, changes };
}

/** A value for an event; undefined becomes null. */
export function shown(field: string, value: unknown): unknown {
  const safe = masked(field, value);
  const text = JSON.stringify(safe);
  return text !== undefined && text.length > valueCharactersMax
    ? `${text.slice(0, charactersMax)}… (${text.length} characters)`
    : safe;
}

function masked(name: string, value: unknown): unknown {
  if (value === undefined || value === null) return null;
  if (secretName.test(name)) return mask;
  if (typeof value === "string") {
    const text = value.replace(urlPassword, `$1${mask}@`);
    return text.length > charactersMax
      ? `${text.slice(0, charactersMax)}… (${text.length} characters)`
      : text;
  }
  if (Array.isArray(value)) return value.map((item) => masked(name, item));
  if (value instanceof Date) return value.toISOString();
  if (typeof value === "object") {
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, masked(key, inner)]));
  }
  return value;
}
