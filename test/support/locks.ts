import { sql } from "kysely";
import { expect } from "vitest";
import type { Db } from "../../src/store/pg/database.ts";

/** The time in which a statement reaches its lock, in milliseconds. */
const patienceMs = 5_000;

/** Resolves when a connection of this database waits for another connection's lock. */
export async function untilBlocked({ db }: { db: Db }): Promise<void> {
  await expect
    .poll(
      async () => {
        const { rows } = await sql<{ is_waiting: boolean }>`
          select exists (select from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock') as is_waiting`.execute(db);
        return rows[0]!.is_waiting;
      },
      { timeout: patienceMs },
    )
    .toBe(true);
}
