import { type RawBuilder, sql } from "kysely";

type Column<Item> = readonly [
  type: "text" | "uuid" | "timestamptz" | "int" | "bigint" | "boolean" | "jsonb",
  value: (item: Item) => unknown,
];

/** A batch of at most this number of items is planned once per connection. */
const fewMax = 4;
/**
 * An array in PostgreSQL's text form. pg's own conversion has the same result at several times the
 * cost: it searches every element for characters to escape, and a batch of completions has ten
 * thousand elements without any.
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

/** Whether the text needs no quotes in an array. */
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

/** Marks in the text of a statement: an input has few items, or more. */
const fewMark = "/* few */";
const manyMark = "/* many */";

/**
 * For a statement without such inputs whose plan is to be kept, too. The statement must name its
 * result columns: a `select *` fails when a migration adds columns.
 */
export const ofFew = sql.raw(fewMark);

/**
 * Whether a statement's plan may be kept (see prepared.ts): all of its inputs have few items. The
 * best plan for few items would join thousands of items in nested loops.
 */
export function isOfFew(text: string): boolean {
  return text.includes(fewMark) && !text.includes(manyMark);
}

/**
 * Items as a table expression with one array parameter per column, for statements on thousands of
 * rows: `unnest($1::text[], $2::uuid[]) with ordinality as i(org_id, run_id, ord)`. `ord` counts
 * from 1 in the items' order.
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
  // The limit is in the text: PostgreSQL assumes ten rows for an unknown array, and would then
  // prefer a new plan for each single item.
  return sql`${sql.raw(fewMark)} (select * from ${table} limit ${sql.lit(fewMax)}) as ${sql.ref(alias)}`;
}
