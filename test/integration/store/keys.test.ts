/** The schema can be sharded by tenant: the keys of every table of tenants lead with org_id. */
import { sql } from "kysely";
import { expect, test } from "vitest";
import { useDatabase } from "../../support/database.ts";

const database = useDatabase({ per: "file" });

/**
 * Unique indexes that do not lead with org_id, each with the reason, and the solution for a sharded
 * database.
 */
const exceptions: Record<string, string> = {
  token_sha256_key:
    "a token is looked up before its org is known; a sharded database asks a directory of hashes, or all",
  join_code_pkey: "so is a join code, by whoever enrols; rare, and good for a quarter of an hour",
  run_one_active:
    "a look-up by watcher has an index of its own, with org_id second; sharding needs org_id in a key, not in front",
};

test("the primary key and every unique index of a tenant's table lead with org_id, but for those that are named", async () => {
  const { rows } = await sql<{ table: string; index: string; leading: string }>`
    select t.relname as "table", i.relname as index, a.attname as leading
    from pg_index x
    join pg_class t on t.oid = x.indrelid
    join pg_class i on i.oid = x.indexrelid
    left join pg_attribute a on a.attrelid = t.oid and a.attnum = x.indkey[0]
    where t.relnamespace = 'public'::regnamespace and x.indisunique and not t.relispartition
      and exists (select from pg_attribute o where o.attrelid = t.oid and o.attname = 'org_id' and not o.attisdropped)
    order by 1, 2`.execute(database.db);
  expect(rows.length).toBeGreaterThan(10);
  const others = rows.filter(({ leading }) => leading !== "org_id").map(({ index }) => index);
  expect(others.sort()).toEqual(Object.keys(exceptions).sort());
});

test("tables without org_id are those that belong to no tenant", async () => {
  const { rows } = await sql<{ table: string }>`
    select relname as "table" from pg_class t
    where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition
      and not exists (select from pg_attribute o where o.attrelid = t.oid and o.attname = 'org_id' and not o.attisdropped)
    order by 1`.execute(database.db);
  // The org's own row has its id as the key; a person may be a member of several orgs; the clock
  // belongs to the database.
  expect(rows.map(({ table }) => table)).toEqual([
    // The name of the database's cell.
    "cell",
    "clock",
    "clock_jump",
    "kysely_migration",
    "kysely_migration_lock",
    "org",
    "replica",
    // Belongs to no user before its use; single use.
    "sign_in_code",
    "user",
    "user_identity",
  ]);
});
