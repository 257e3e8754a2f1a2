import { type RawBuilder, sql } from "kysely";

type Column<Item> = [
  type: "text" | "uuid" | "timestamptz" | "int" | "bigint" | "boolean" | "jsonb",
  value: (item: Item) => unknown,
];

/**
 * Items as a table expression of one array parameter per column, for statements that take thousands of rows at once:
 * `unnest($1::text[], $2::uuid[]) with ordinality as i(org_id, run_id, ord)`. `ord` counts from 1 in the items' order.
 */
export function unnest<Item>(
  alias: string,
  items: readonly Item[],
  columns: Record<string, Column<Item>>,
): RawBuilder<unknown> {
  const arrays = Object.values(columns).map(([type, value]) => sql`${items.map(value)}::${sql.raw(type)}[]`);
  const names = [...Object.keys(columns), "ord"].map((name) => sql.ref(name));
  return sql`unnest(${sql.join(arrays)}) with ordinality as ${sql.ref(alias)}(${sql.join(names)})`;
}
