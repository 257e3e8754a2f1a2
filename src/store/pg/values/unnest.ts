import { type RawBuilder, sql } from "kysely";
import { uuidArray } from "./uuid-array.ts";

type Column<Item> = readonly [
  type: "text" | "uuid" | "timestamptz" | "int" | "bigint" | "boolean" | "jsonb",
  value: (item: Item) => unknown,
];

/** A batch of at most this number of items is planned once per connection. */
const fewMax = 4;
/**
 * A column's values: an array in PostgreSQL's text or binary form, or the value that all items
 * have.
 */
type Values = { array: string | Buffer } | { common: string | null };

/**
 * The values of a column. pg's own conversion of arrays has the same result at several times the
 * cost: it searches every element for characters to escape. A batch of completions has ten thousand
 * elements, nearly all without any, and in half of its columns all elements are equal.
 */
function valuesOf<Item>(
  type: Column<Item>[0],
  items: readonly Item[],
  value: (item: Item) => unknown,
): Values {
  const first = value(items[0]!);
  let index = 1;
  while (index < items.length && isSame(first, value(items[index]!))) index++;
  if (index === items.length) return { common: first === null || first === undefined ? null : textOf(first) };
  if (type === "uuid") {
    const bytes = uuidArray(items.map(value));
    // PostgreSQL refuses what is no uuid.
    if (bytes) return { array: bytes };
  }
  let text = `{${Array(index).fill(elementOf(type, first)).join(",")}`;
  for (; index < items.length; index++) text += `,${elementOf(type, value(items[index]!))}`;
  return { array: `${text}}` };
}

function isSame(one: unknown, other: unknown): boolean {
  if (one === other) return true;
  if (one === null || one === undefined) return other === null || other === undefined;
  return one instanceof Date && other instanceof Date && one.getTime() === other.getTime();
}

/** An element of an array. */
function elementOf(type: Column<never>[0], value: unknown): string {
  if (value === null || value === undefined) return "NULL";
  if (typeof value === "string") return isBare(type, value) ? value : quoted(value);
  return textOf(value);
}

function textOf(value: unknown): string {
  return value instanceof Date ? momentText(value) : String(value);
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
const anySizeMark = "/* any size */";
const changingMark = "/* changing */";

/**
 * For a statement without such inputs whose plan is to be kept, too. The statement must name its
 * result columns: a `select *` fails when a migration adds columns.
 */
export const ofFew = sql.raw(fewMark);

/**
 * For a statement whose kept plan suits any number of items, because each item is looked up by its
 * key and no two inputs are joined with each other. Planning such a statement takes PostgreSQL as
 * long as a hundred items. The statement must name its result columns, as with {@link ofFew}.
 */
export const ofAnySize = sql.raw(anySizeMark);

/** For a statement whose text changes with its parts: its plan is never kept. */
export const ofChangingText = sql.raw(changingMark);

/**
 * Whether a statement's plan may be kept (see prepared.ts): "few" if all of its inputs have few
 * items, "many" if its plan suits any number. Otherwise the best plan for few items would join
 * thousands of items in nested loops.
 */
export function keptSizeOf(text: string): "few" | "many" | undefined {
  if (text.startsWith(changingMark)) return undefined;
  if (!text.includes(manyMark)) return text.includes(fewMark) ? "few" : undefined;
  return text.includes(anySizeMark) ? "many" : undefined;
}

/**
 * Items as a table expression with one array parameter per column, for statements on thousands of
 * rows: `unnest($1::text[], $2::uuid[]) with ordinality as i(org_id, run_id, ord)`. `ord` counts
 * from 1 in the items' order. Of one item, and of many, a column with one value for all is a
 * constant.
 */
export function unnest<Item>(
  alias: string,
  items: readonly Item[],
  columns: Readonly<Record<string, Column<Item>>>,
): RawBuilder<unknown> {
  const arrays: (string | Buffer)[] = [];
  const constants: (string | null)[] = [];
  const size = sizeOf(items.length);
  let shape = `${alias} ${size}`;
  for (const [name, [type, value]] of Object.entries(columns)) {
    // Statements of one item have one text, and so have those of few items: their plans are kept.
    const values: Values =
      size === "few"
        ? { array: `{${items.map((item) => elementOf(type, value(item))).join(",")}}` }
        : valuesOf(type, items, value);
    const isConstant = "common" in values;
    if (isConstant) constants.push(values.common);
    else arrays.push(values.array);
    shape += ` ${name} ${type} ${isConstant}`;
  }
  // Equal items: the count is in the text.
  if (arrays.length === 0) shape += ` ${items.length}`;
  let texts = textsOf.get(shape);
  if (!texts) {
    if (textsOf.size >= shapesMax) textsOf.clear();
    texts = expressionOf(shape, items.length).split(parameter);
    textsOf.set(shape, texts);
  }
  return sql(texts as unknown as TemplateStringsArray, ...constants, ...arrays);
}

function sizeOf(count: number): "one" | "few" | "many" {
  if (count === 1) return "one";
  return count <= fewMax ? "few" : "many";
}

/**
 * The texts between the parameters of an expression, by its shape. Made anew, the expressions of a
 * statement cost more than the rest of the statement: some hundred parts, of which few ever change.
 */
const textsOf = new Map<string, readonly string[]>();
/** The code has some dozens of shapes. */
const shapesMax = 1_000;
/** Stands for a parameter in a text; no identifier has it. */
const parameter = "\0";

/** The text of a shape, which names alias and columns. */
function expressionOf(shape: string, count: number): string {
  const [alias, size, ...words] = shape.split(" ") as [string, string, ...string[]];
  const names: string[] = [];
  const arrays: string[] = [];
  const constants: string[] = [];
  for (let at = 0; at + 2 < words.length; at += 3) {
    const [name, type, isConstant] = words.slice(at, at + 3);
    if (isConstant === "true") {
      constants.push(`${parameter}::${type} as "${name}"`);
    } else {
      arrays.push(`${parameter}::${type}[]`);
      names.push(`"${name}"`);
    }
  }
  // PostgreSQL merges it into the statement, whose plan then looks up rows by parameters: to begin
  // and to end a plan takes longer than to execute it for one item.
  if (size === "one") return `${fewMark} (select ${constants.join(", ")}, 1::bigint as "ord") as "${alias}"`;
  // The count has to come from an array.
  if (arrays.length === 0) {
    arrays.push(`array_fill(0, array[${count}])`);
    names.push('"filler"');
  }
  const columns = [...names, '"ord"'].join(", ");
  const table = `unnest(${arrays.join(", ")}) with ordinality as "${alias}"(${columns})`;
  // The limit is in the text: PostgreSQL assumes ten rows for an unknown array, and would then
  // prefer a new plan for each single item.
  if (size === "few") return `${fewMark} (select * from ${table} limit ${fewMax}) as "${alias}"`;
  if (constants.length === 0) return `${manyMark} ${table}`;
  return `${manyMark} (select *, ${constants.join(", ")} from ${table}) as "${alias}"`;
}
