import { sql } from "kysely";
import { expect, vi } from "vitest";
import type { Db } from "../../src/store/pg/database.ts";

/**
 * Vacuums and analyzes a table and its partitions until all their pages are marked as visible to
 * everybody. A vacuum marks no page with rows that an older snapshot in the database may not see,
 * such as that of an automatic analyze, so one vacuum may mark none.
 */
export function vacuumWhole(db: Db, table: string): Promise<void> {
  return vi.waitFor(
    async () => {
      await sql`vacuum (freeze, analyze) ${sql.table(table)}`.execute(db);
      const { rows } = await sql<{ name: string }>`
        select c.relname as name from pg_partition_tree(${table}::regclass) t join pg_class c on c.oid = t.relid
        where c.relkind = 'r' and c.relallvisible < c.relpages`.execute(db);
      expect(rows).toEqual([]);
    },
    { timeout: 20_000, interval: 100 },
  );
}
