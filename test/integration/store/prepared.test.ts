/** Statements of a few items keep their plans; those of many are planned for what they are. */
import { type Kysely, sql } from "kysely";
import { afterEach, expect, test } from "vitest";
import { type Database, openDatabase } from "../../../src/store/database.ts";
import * as presence from "../../../src/store/presence.ts";
import type { Schema } from "../../../src/store/schema.ts";
import { useDatabase } from "../../support/database.ts";
import { openDevice, seedDevice } from "../../support/rows.ts";

const t = useDatabase();
let opened: Database | undefined;
afterEach(() => opened?.close());

function open(options: { isPooled?: boolean } = {}): Kysely<Schema> {
  opened = openDatabase({ url: t.url, poolMax: 1, ...options });
  return opened.db;
}

const prepared = async (db: Kysely<Schema>) =>
  (
    await sql<{ kept: number; made: number; rows: number }>`
      select generic_plans::int as kept, custom_plans::int as made from pg_prepared_statements`.execute(db)
  ).rows;

const nobody = { orgId: "nobody", deviceId: "00000000-0000-7000-8000-000000000000", epoch: 1 };
const manyOf = (count: number) => Array.from({ length: count }, () => nobody);

test("after some uses a statement of a few items is not planned any more", async () => {
  const db = open();
  for (let use = 0; use < 20; use++) await presence.beat(db, manyOf(1 + (use % 4)));
  const [statement, ...others] = await prepared(db);
  expect(others).toEqual([]);
  expect(statement!.made).toBeLessThan(10);
  expect(statement!.kept).toBeGreaterThan(10);
});

test("a statement of many items is planned for as many as there are", async () => {
  const db = open();
  for (let use = 0; use < 10; use++) await presence.beat(db, manyOf(5 + use));
  expect(await prepared(db)).toEqual([]);
});

test("nothing is prepared through a pooler", async () => {
  const db = open({ isPooled: true });
  for (let use = 0; use < 10; use++) await presence.beat(db, [nobody]);
  expect(await prepared(db)).toEqual([]);
});

test("a kept plan does what it should for each number of few items, and after its tables changed", async () => {
  const db = open();
  const sessions: presence.SessionName[] = [];
  for (let made = 0; made < 4; made++) {
    const device = await seedDevice(t.db);
    sessions.push({ ...device, epoch: (await openDevice(t.db, device)).epoch });
  }
  const stale = (count: number) => sessions.slice(0, count).map((session) => ({ ...session, epoch: 99 }));
  for (let use = 0; use < 10; use++) expect(await presence.beat(db, sessions)).toEqual([]);
  for (const count of [1, 2, 3, 4]) expect(await presence.beat(db, stale(count))).toHaveLength(count);
  await sql`alter table presence add column added_later int`.execute(t.db);
  expect(await presence.beat(db, sessions)).toEqual([]);
  expect(await presence.beat(db, stale(3))).toHaveLength(3);
});
