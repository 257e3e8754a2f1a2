/**
 * What an open transaction writes last, after all other statements, whoever asks for it and when:
 *
 *   begin ─ lock, write, {@link lastly} ─ lock, write, {@link lastly} ─┬─ the last rows ─ commit
 *                                                                       └─ one statement for all
 *
 * So a lock that ends the order of locks is taken last, and is held for a moment only.
 */
import type { Transaction } from "kysely";
import type { Schema } from "./schema/schema.ts";

/** Writes all rows of a transaction. */
export type LastWrite<T> = (tx: Transaction<Schema>, rows: readonly T[]) => Promise<void>;

/** The rows that wait, by their writer, of each transaction that ends with {@link writingLast}. */
const waiting = new WeakMap<object, Map<LastWrite<never>, unknown[]>>();

/**
 * Has the transaction write the rows as its last statement. False if nobody writes last in it: the
 * transaction was not opened by `transaction` (database.ts), and the caller writes the rows itself.
 */
export function lastly<T>(tx: object, write: LastWrite<T>, rows: readonly T[]): boolean {
  const writes = waiting.get(tx);
  if (!writes) return false;
  const before = writes.get(write) ?? [];
  for (const row of rows) before.push(row);
  writes.set(write, before);
  return true;
}

/** Runs `fn` in the transaction, and then writes what has to be written last. */
export async function writingLast<T>(
  tx: Transaction<Schema>,
  fn: (tx: Transaction<Schema>) => Promise<T>,
): Promise<T> {
  const writes = new Map<LastWrite<never>, unknown[]>();
  waiting.set(tx, writes);
  const result = await fn(tx);
  waiting.delete(tx);
  for (const [write, rows] of writes) if (rows.length > 0) await write(tx, rows as never[]);
  return result;
}

/** For a savepoint: returns a function that forgets what was asked for since. */
export function noteLast(tx: object): () => void {
  const counts = new Map([...(waiting.get(tx) ?? [])].map(([write, rows]) => [write, rows.length]));
  return () => {
    for (const [write, rows] of waiting.get(tx) ?? []) rows.length = counts.get(write) ?? 0;
  };
}
