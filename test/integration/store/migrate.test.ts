import { sql } from "kysely";
import { afterEach, beforeEach, expect, test } from "vitest";
import { listMigrations, migrate } from "../../../src/store/pg/migrate.ts";
import { createTestDatabase, type TestDatabase } from "../../support/database.ts";

let t: TestDatabase;
beforeEach(async () => {
  t = await createTestDatabase({ isEmpty: true });
});
afterEach(() => t.drop());

test("an empty database gets all migrations, and a second time nothing happens", async () => {
  expect(await migrate(t.url)).toEqual({ applied: await listMigrations() });
  expect(await migrate(t.url)).toEqual({ applied: [] });
});

test("replicas that start at once apply each migration once", async () => {
  const results = await Promise.all(Array.from({ length: 6 }, () => migrate(t.url)));
  const applied = results.flatMap((result) => result.applied);
  expect(applied).toEqual(await listMigrations());
});

test("a migrated database takes rows", async () => {
  await migrate(t.url);
  await t.db.insertInto("org").values({ id: "o", name: "O" }).execute();
  await t.db.insertInto("user").values({ name: "U" }).execute();
  const id = await sql<{ id: string }>`select uuid_v7() as id`.execute(t.db);
  expect(id.rows[0]?.id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7/);
});

test("a database of a newer version is refused with advice", async () => {
  await migrate(t.url);
  await sql`insert into kysely_migration (name, timestamp) values ('9999_future', now()::text)`.execute(t.db);
  await expect(migrate(t.url)).rejects.toThrow(/9999_future.*newer version/);
});

test("a migration that fails leaves nothing behind", async () => {
  // Conflicts with the base schema.
  await sql`create table "window" (id int)`.execute(t.db);
  await expect(migrate(t.url)).rejects.toThrow("already exists");
  const tables = await sql<{ n: number }>`
    select count(*)::int as n from pg_tables where schemaname = 'public' and tablename = 'org'`.execute(t.db);
  expect(tables.rows[0]?.n).toBe(0);
  await sql`drop table "window"`.execute(t.db);
  expect(await migrate(t.url)).toEqual({ applied: await listMigrations() });
});
