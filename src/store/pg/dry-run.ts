import { type Db, transaction } from "./database.ts";

/** Carries the outcome out of a transaction that is rolled back. */
class Rehearsed<T> extends Error {
  readonly outcome: T;
  constructor(outcome: T) {
    super("rolled back: a dry run");
    this.outcome = outcome;
  }
}

/** A transaction whose outcome is answered as ever; a dry run then takes back what it did, so nobody has seen it. */
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
