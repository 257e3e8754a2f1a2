import { sql } from "kysely";
import { type Db, transaction } from "../../src/store/pg/database.ts";
import { withinOrg } from "../../src/store/pg/tenancy.ts";

/**
 * The pages of tables, without those of their indexes, that a statement of an org's people reads.
 * `tables`: a regular expression of their names.
 */
export async function pagesRead(
  { db, tenantDb }: { db: Db; tenantDb: Db },
  { orgId, tables }: { orgId: string; tables: string },
  read: (tx: Db) => Promise<unknown>,
): Promise<number> {
  const readUntilNow = async () => {
    const { rows } = await sql<{ pages: number }>`
      select sum(heap_blks_read + heap_blks_hit)::int as pages from pg_statio_all_tables where relname ~ ${tables}`.execute(
      db,
    );
    return rows[0]!.pages;
  };
  // What a connection has counted is seen by others from its commit on.
  const counted = (tx: Db) => sql`select pg_stat_force_next_flush()`.execute(tx);
  const within = (fn: (tx: Db) => Promise<unknown>) => withinOrg(orgId, () => transaction(tenantDb, fn));
  await within(counted);
  const before = await readUntilNow();
  await within(async (tx) => {
    await read(tx);
    await counted(tx);
  });
  return (await readUntilNow()) - before;
}
