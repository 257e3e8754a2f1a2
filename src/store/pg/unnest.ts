import { type RawBuilder, sql } from "kysely";

type Column<Item> = readonly [
  type: "text" | "uuid" | "timestamptz" | "int" | "bigint" | "boolean" | "jsonb",
  value: (item: Item) => unknown,
];

/** A batch of so few is planned once per connection. */
const fewMax = 4;
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
  const arrays = Object.values(columns).map(([type, value]) => sql`${items.map(value)}::${sql.raw(type)}[]`);
  const names = [...Object.keys(columns), "ord"].map((name) => sql.ref(name));
  const table = sql`unnest(${sql.join(arrays)}) with ordinality as ${sql.ref(alias)}(${sql.join(names)})`;
  if (items.length > fewMax) return sql`${sql.raw(manyMark)} ${table}`;
  // Said in the text: PostgreSQL takes an array that it does not know for ten rows, and would then find a plan that is
  // made anew for each one item the cheaper one.
  return sql`${sql.raw(fewMark)} (select * from ${table} limit ${sql.lit(fewMax)}) as ${sql.ref(alias)}`;
}
