/**
 * Runs wait for statements of few items, and PostgreSQL takes longer to plan than to execute them.
 * So each connection prepares them by name: after the fifth use PostgreSQL keeps the plan, and
 * drops the plan when a table of the statement changes or is analyzed.
 */
import { createHash } from "node:crypto";
import type pg from "pg";
import { isOfFew } from "./unnest.ts";

/**
 * Maximum prepared texts of a process; further texts are planned each time. The code has some
 * dozens.
 */
const namesMax = 200;
const names = new Map<string, string>();

/**
 * Makes a connection prepare the suitable statements of all callers. Not through a pooler, whose
 * connections change.
 */
export function prepareFew(client: pg.PoolClient): void {
  const query = client.query.bind(client) as (...args: unknown[]) => unknown;
  const preparing = (text: unknown, values: unknown, ...rest: unknown[]) => {
    const name = typeof text === "string" && Array.isArray(values) ? nameOf(text) : undefined;
    return name ? query({ name, text, values }, ...rest) : query(text, values, ...rest);
  };
  client.query = preparing as typeof client.query;
}

function nameOf(text: string): string | undefined {
  const known = names.get(text);
  if (known || !isOfFew(text) || names.size >= namesMax) return known;
  const name = `few_${createHash("sha256").update(text).digest("hex").slice(0, 24)}`;
  names.set(text, name);
  return name;
}
