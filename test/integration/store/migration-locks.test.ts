/**
 * A change of the schema beside statements that run: no statement of a replica is ended for it.
 */
import { sql } from "kysely";
import pg from "pg";
import { afterEach, beforeEach, expect, test } from "vitest";
import { type LockMode, lockGivingWay, lockModes, type Send } from "../../../src/store/pg/give-way.ts";
import { listMigrations, locksOf, migrate } from "../../../src/store/pg/migrate.ts";
import { migrationFiles } from "../../../src/store/pg/migration-files.ts";
import { createTestDatabase, type TestDatabase } from "../../support/database.ts";
import { isClockFaked } from "../../support/faketime.ts";
import { hold, untilBlocked } from "../../support/locks.ts";

/** The last migration of the first version: older databases do not exist. */
const first = "0008_hooks_and_destinations";
/** Milliseconds; longer than the `deadlock_timeout` of the tests' PostgreSQL. */
const checkedMs = 500;

let t: TestDatabase;
beforeEach(async () => {
  t = await createTestDatabase({ isEmpty: true });
});
afterEach(() => t.drop());

/** Brings the empty database to the schema up to a migration; returns the later migrations. */
async function migrateTo(last: string): Promise<string[]> {
  const later = (await listMigrations()).filter((name) => name > last);
  await sql`create table kysely_migration (name varchar(255) primary key, timestamp varchar(255) not null)`.execute(
    t.db,
  );
  for (const [name, text] of migrationFiles()) {
    if (name > last) continue;
    await sql.raw(text).execute(t.db);
    await sql`insert into kysely_migration values (${name}, now()::text)`.execute(t.db);
  }
  return later;
}

/** The pg_locks modes that make a statement of a replica wait, or that wait for one. */
const noted = new Map<string, LockMode>([
  ["AccessExclusiveLock", "access exclusive"],
  ["ExclusiveLock", "exclusive"],
  ["ShareRowExclusiveLock", "share row exclusive"],
  ["ShareLock", "share"],
  // Written rows may be locked by a transaction that waits for one of the migration's tables.
  ["RowExclusiveLock", "share row exclusive"],
]);

/**
 * The tables from before a migration that it locks, with the mode to declare; applies the
 * migration.
 */
function locksTakenBy(text: string) {
  return t.db.transaction().execute(async (tx) => {
    const before = await sql<{ name: string }>`select relname as name from pg_class
      where relnamespace = 'public'::regnamespace and relkind in ('r', 'p') and not relispartition`.execute(
      tx,
    );
    const present = new Set(before.rows.map((row) => row.name));
    await sql.raw(text).execute(tx);
    const { rows } = await sql<{ name: string; mode: string }>`
      select c.relname as name, l.mode from pg_locks l join pg_class c on c.oid = l.relation
      where l.pid = pg_backend_pid() and c.relnamespace = 'public'::regnamespace order by 1`.execute(tx);
    return rows.flatMap(({ name, mode }) => {
      const declared = noted.get(mode);
      return declared && present.has(name) ? [{ name, mode: declared }] : [];
    });
  });
}

test("each migration declares the tables that it locks", async () => {
  const later = await migrateTo(first);
  const lacking: string[] = [];
  for (const name of later) {
    const text = migrationFiles().get(name)!;
    const declared = locksOf(text);
    expect(lockModes).toEqual(expect.arrayContaining([...declared.keys()]));
    const isDeclared = (taken: { name: string; mode: LockMode }) =>
      lockModes
        .slice(0, lockModes.indexOf(taken.mode) + 1)
        .some((mode) => declared.get(mode)?.includes(taken.name));
    const rest = (await locksTakenBy(text)).filter((taken) => !isDeclared(taken));
    for (const [mode, rows] of Map.groupBy(rest, (taken) => taken.mode)) {
      lacking.push(`${name}.sql: -- locks in ${mode} mode: ${rows.map((row) => row.name).join(", ")}`);
    }
  }
  expect(lacking).toEqual([]);
});

test.skipIf(isClockFaked)(
  "a migration gives way to a transaction that has read one table and then wants another",
  async () => {
    const later = await migrateTo("0060_fewer_analyzes");
    await using replica = await hold(t.db);
    await sql`select from watcher`.execute(replica.tx);
    await replica.sent();
    const migrated = migrate(t.url);
    await untilBlocked(t.db);
    // A migration that still waits has looked for a circle by now, and found none.
    await sql`select pg_sleep(${checkedMs / 1_000})`.execute(t.db);
    await sql`select from agent`.execute(replica.tx);
    await replica.commit();
    expect(await migrated).toEqual({ applied: later });
  },
);

test("tables are locked together or not at all, and an autovacuum of one of them is waited for", async () => {
  await migrateTo(first);
  const client = new pg.Client({ connectionString: t.url });
  await client.connect();
  try {
    await using vacuum = await hold(t.db);
    await sql`lock table watcher in share update exclusive mode`.execute(vacuum.tx);
    await vacuum.sent();
    const send: Send = (statement) => client.query(statement);
    await client.query("begin");
    const locked = lockGivingWay(send, new Map([["access exclusive", ["agent", "watcher"]]]));
    await untilBlocked(t.db);
    await sql`select from agent for update`.execute(t.db);
    await vacuum.commit();
    await locked;
    const { rows } = await client.query("show statement_timeout");
    expect(rows).toEqual([{ statement_timeout: "0" }]);
    await expect(
      t.db.transaction().execute((tx) => sql`lock table agent in access share mode nowait`.execute(tx)),
    ).rejects.toMatchObject({ code: "55P03" });
  } finally {
    await client.end();
  }
});
