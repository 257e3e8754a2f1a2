/** Transactions held open, and the statements that wait for them. */
import { type ControlledTransaction, sql } from "kysely";
import { expect } from "vitest";
import type { Db } from "../../src/store/pg/database.ts";
import { inCompany } from "../../src/store/pg/round-trips.ts";
import type { Schema } from "../../src/store/pg/schema/schema.ts";
import { heldMark } from "./lock-order.ts";

/** The time in which a statement reaches its lock, in milliseconds. */
const patienceMs = 10_000;
const lookEveryMs = 5;

type Held = {
  tx: ControlledTransaction<Schema>;
  /** Sends the statements that wait to be sent with another one. */
  sent(): Promise<void>;
  commit(): Promise<void>;
} & AsyncDisposable;

/**
 * A transaction on a separate connection that stays open until released; if forgotten, it is rolled
 * back.
 */
export async function hold(db: Db): Promise<Held> {
  const tx = await db.startTransaction().setIsolationLevel("read committed").execute();
  await inAnyOrder(tx);
  return {
    tx,
    async sent() {
      await sql`select`.execute(tx);
    },
    commit: () => tx.commit().execute(),
    async [Symbol.asyncDispose]() {
      if (!tx.isCommitted && !tx.isRolledBack) await tx.rollback().execute();
    },
  };
}

/** For a transaction whose statements a test puts in an order of its own: see lock-order.ts. */
export async function inAnyOrder(tx: Db): Promise<void> {
  // Sent with the next statement.
  await sql`${inCompany} select ${sql.lit(heldMark)}`.execute(tx);
}

/** Resolves once `count` statements of this database wait for another connection's lock. */
export async function untilBlocked(db: Db, count = 1): Promise<void> {
  const waiting = async () => {
    const { rows } = await sql<{ pid: number }>`
      select pid from pg_stat_activity
      where datname = current_database() and wait_event_type = 'Lock'`.execute(db);
    return rows.length;
  };
  await expect.poll(waiting, { timeout: patienceMs, interval: lookEveryMs }).toBeGreaterThanOrEqual(count);
}
