/**
 * Checks the order of locks: every transaction of the tests in this process takes its first locks
 * of the tables in the order of ARCHITECTURE.md, or the test fails with the statement. A deadlock
 * needs two transactions at one moment; a wrong order is visible in one transaction alone.
 *
 * The check reads the texts of statements: the tables of `update`, `delete from` and `for update`.
 * The check does not see locks by foreign keys, triggers and functions, nor the order within a
 * statement. `skip locked` waits for no row, and no other transaction can lock an inserted row.
 */
import pg from "pg";

/** The orders: the tables of each order, from the first to the last. */
const orders: readonly (readonly string[])[] = [
  // biome-ignore format: one order, in one line
  ["member", "device", "device_grant", "join_code", "token", "hook", "run", "run_finished", "turn", "watcher", "agent"],
  ["turn", "conversation"],
  ["destination", "delivery"],
];

/** Whether an order has `table` before `other`. */
function isBefore(table: string, other: string): boolean {
  return orders.some((order) => order.includes(table) && order.indexOf(table) < order.indexOf(other));
}

const known = new Set(orders.flat());

/** The tables of an order whose rows a statement waits for. */
export function locksOf(text: string): string[] {
  const found = new Set<string>();
  const plain = text
    .replaceAll(/--[^\n]*/g, " ")
    .replaceAll('"', "")
    .replaceAll(/\s+/g, " ");
  // After a move, the rows of a whole org are deleted table by table, behind the org's fence: no
  // other transaction writes these rows.
  if (/^ ?delete from \w+ where (?:org_id|id) = \$1 ?$/.test(plain)) return [];
  for (const [, table] of plain.matchAll(/\b(?:update|delete from)\s+(?:only\s+)?(\w+)\b/g))
    found.add(table!);
  for (const clause of plain.matchAll(
    /\bfor (?:no key )?(?:update|share)\b(?:\s+of\s+([\w, ]+?))?( skip locked)?(?= ?(?:\)|$|;|nowait|limit|skip))/g,
  )) {
    const before = fromClause(plain, clause.index);
    const isPassing =
      clause[2] !== undefined || /^\s*skip locked/.test(plain.slice(clause.index + clause[0].length));
    const aliases = clause[1]?.split(",").map((name) => name.trim().split(" ")[0]!);
    for (const { table, alias } of before) {
      if (aliases && !aliases.includes(alias)) continue;
      // A caller's own token is locked for share; only the end of the token waits for this lock
      // (callers.ts).
      if (isPassing || (table === "token" && clause[0].endsWith("share"))) found.delete(table);
      else found.add(table);
    }
  }
  return [...found].filter((table) => known.has(table));
}

/** The tables between the last `from` of the same depth and `end`. */
function fromClause(text: string, end: number): { table: string; alias: string }[] {
  let depth = 0;
  let at = end - 1;
  for (; at >= 0; at--) {
    if (text[at] === ")") depth++;
    else if (text[at] === "(" && --depth < 0) break;
    else if (depth === 0 && text.startsWith("from ", at) && /[\s(]/.test(text[at - 1] ?? " ")) break;
  }
  let flat = "";
  depth = 0;
  for (const char of text.slice(Math.max(at, 0), end)) {
    if (char === "(") depth++;
    if (depth === 0) flat += char;
    if (char === ")") depth--;
  }
  return [
    ...flat.matchAll(
      /\b(?:from|join|,)\s+(\w+)(?:\s+(?:as\s+)?(?!on\b|join\b|where\b|for\b|left\b|cross\b|order\b|using\b|limit\b)(\w+))?/g,
    ),
  ].map(([, table, alias]) => ({ table: table!, alias: alias ?? table! }));
}

/** In a statement of a transaction that a test holds open, in an order of its own. */
export const heldMark = "held by a test";

/** A lock that contradicts its order. */
export type WrongLock = { table: string; after: string; statement: string; before: string };

/** The locks of a connection's open transaction: the statement of each table's first lock. */
type Open = { locked: Map<string, string>; isHeld: boolean };

/** Follows the statements of connections. */
export class LockOrder {
  readonly wrong: WrongLock[] = [];
  readonly #open = new WeakMap<object, Open>();
  readonly #known = new Map<string, string[]>();

  /** A statement is sent on a connection. */
  sent(connection: object, text: string): void {
    if (/^\s*(?:begin|start transaction)\b/i.test(text)) {
      this.#open.set(connection, { locked: new Map(), isHeld: false });
      return;
    }
    if (/^\s*(?:commit|rollback)\s*;?\s*$/i.test(text)) this.#open.delete(connection);
    const open = this.#open.get(connection);
    if (!open) return;
    open.isHeld ||= text.includes(heldMark);
    if (!open.isHeld) this.#locks(open, text);
  }

  #locks({ locked }: Open, text: string): void {
    const tables = this.#known.get(text) ?? locksOf(text);
    this.#known.set(text, tables);
    const fresh = tables.filter((table) => !locked.has(table));
    for (const table of fresh) {
      const later = [...locked].find(([other]) => isBefore(table, other));
      if (later) this.wrong.push({ table, after: later[0], statement: text, before: later[1] });
    }
    for (const table of fresh) locked.set(table, text);
  }
}

type Submitting = { submit(connection: { stream: object }): unknown; text: string };

const name = Symbol.for("pinion.test.lockOrder");
const shared = globalThis as { [name]?: LockOrder };

/** Follows all statements of this process, from the first call on. */
export function lockOrder(): LockOrder {
  if (shared[name]) return shared[name];
  const order = new LockOrder();
  const prototype = pg.Query.prototype as unknown as Submitting;
  const submit = prototype.submit;
  prototype.submit = function (this: Submitting, connection) {
    order.sent(connection.stream, this.text);
    return submit.call(this, connection);
  };
  shared[name] = order;
  return order;
}

/** Throws for the wrong locks since the last call. */
export function requireOrder({ wrong } = lockOrder()): void {
  const found = wrong.splice(0);
  if (found.length === 0) return;
  const words = found.map(
    ({ table, after, statement, before }) =>
      `${table} is locked after ${after}:\n${before}\n— and then —\n${statement}`,
  );
  throw new Error(`locks in a wrong order (ARCHITECTURE.md, "Locks in one order"):\n${words.join("\n\n")}`);
}
