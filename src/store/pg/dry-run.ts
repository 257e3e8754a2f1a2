import { type Db, transaction } from "./database.ts";

/** Carries the outcome out of the rolled-back transaction. */
class Rehearsed<T> extends Error {
  readonly outcome: T;
  constructor(outcome: T) {
    super("rolled back: a dry run");
    this.outcome = outcome;
  }
}

/**
 * Runs a transaction and returns its outcome; a dry run then rolls back, and no other transaction
 * sees its writes.
 */
export async function rehearsable<T>(db: Db, isDryRun: boolean, fn: (tx: Db) => Promise<T>): Promise<T> {
  if (!isDryRun) return transaction(db, fn);
  try {
    return await transaction(db, async (tx) => {
      throw new Rehearsed(await fn(tx));
    });
  } catch (error) {
    if (error instanceof Rehearsed) return error.outcome as T;
    throw error;
  }
}
