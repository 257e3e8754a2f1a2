import { type RawBuilder, sql } from "kysely";

type Column<Item> = readonly [
  type: "text" | "uuid" | "timestamptz" | "int" | "bigint" | "boolean" | "jsonb",
  value: (item: Item) => unknown,
];

/** A batch of so few is planned once per connection. */
const fewMax = 4;
/**
 * An array as PostgreSQL reads it. What pg makes of one is the same, but costs several times as much: it looks for what is to be
 * escaped in every element, and a batch of completions has ten thousand that can hold nothing of the kind.
 */
function arrayText<Item>(
  type: Column<Item>[0],
  items: readonly Item[],
  value: (item: Item) => unknown,
): string {
  let text = "{";
  for (let index = 0; index < items.length; index++) {
    if (index > 0) text += ",";
    const element = value(items[index]!);
    if (element === null || element === undefined) text += "NULL";
    else if (typeof element === "string") text += isBare(type, element) ? element : quoted(element);
    else if (element instanceof Date) text += momentText(element);
    else text += String(element);
  }
  return `${text}}`;
}

const uuid = /^[0-9a-f-]{36}$/i;

/** Nothing of the array's own can be in it. */
function isBare(type: Column<never>[0], text: string): boolean {
  return type === "uuid" && uuid.test(text);
}

const special = /["\\]/;

function quoted(text: string): string {
  return special.test(text) ? `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"` : `"${text}"`;
}

/** ISO 8601 has a sign before a year of more than four digits, and PostgreSQL none. */
function momentText(moment: Date): string {
  const text = moment.toISOString();
  return text.startsWith("+") ? text.replace(/^\+0*/, "") : text;
}

/** In the text of a statement: one of its inputs is a few items, or more. */
const fewMark = "/* few */";
const manyMark = "/* many */";

/**
 * In a statement without such inputs whose plan is to be kept as well. Such a statement names the columns that it answers with:
 * one that answers with "all" fails when a migration adds some.
 */
export const ofFew = sql.raw(fewMark);

/**
 * Whether a statement's plan may be kept (see prepared.ts): all of its inputs are few. The plan that is best for a few
 * would join thousands of items in loops within loops.
 */
export function isOfFew(text: string): boolean {
  return text.includes(fewMark) && !text.includes(manyMark);
}

/**
 * Items as a table expression of one array parameter per column, for statements that take thousands of rows at once:
 * `unnest($1::text[], $2::uuid[]) with ordinality as i(org_id, run_id, ord)`. `ord` counts from 1 in the items' order.
 */
export function unnest<Item>(
  alias: string,
  items: readonly Item[],
  columns: Readonly<Record<string, Column<Item>>>,
): RawBuilder<unknown> {
  const arrays = Object.values(columns).map(
    ([type, value]) => sql`${arrayText(type, items, value)}::${sql.raw(type)}[]`,
  );
  const names = [...Object.keys(columns), "ord"].map((name) => sql.ref(name));
  const table = sql`unnest(${sql.join(arrays)}) with ordinality as ${sql.ref(alias)}(${sql.join(names)})`;
  if (items.length > fewMax) return sql`${sql.raw(manyMark)} ${table}`;
  // Said in the text: PostgreSQL takes an array that it does not know for ten rows, and would then find a plan that is
  // made anew for each one item the cheaper one.
  return sql`${sql.raw(fewMark)} (select * from ${table} limit ${sql.lit(fewMax)}) as ${sql.ref(alias)}`;
}
