import { sql } from "kysely";
import { type Db, transaction } from "../../src/store/pg/database.ts";
import { withinOrg } from "../../src/store/pg/tenancy.ts";

/**
 * The rows that statements read, from tables and their indexes. `tables`: a regular expression of
 * their names. A transaction of a tenant is counted within its org (withinOrg).
 */
export function rowsRead(
  { db, tables }: { db: Db; tables: string },
  read: (tx: Db) => Promise<unknown>,
): Promise<number> {
  const readUntilNow = async (tx: Db) => {
    const { rows } = await sql<{ rows: number }>`
      select sum(pg_stat_get_xact_tuples_returned(c.oid) + pg_stat_get_xact_tuples_fetched(c.oid))::int as rows
      from pg_class c where c.relname ~ ${tables} and c.relkind in ('r', 'i')`.execute(tx);
    return rows[0]!.rows;
  };
  return transaction(db, async (tx) => {
    const before = await readUntilNow(tx);
    await read(tx);
    return (await readUntilNow(tx)) - before;
  });
}

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
