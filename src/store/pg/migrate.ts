/** Brings a database to the current schema. Migrations are SQL files and go forward only. */
import { Kysely, PostgresDialect, sql } from "kysely";
import { type Migration, type MigrationProvider, Migrator } from "kysely/migration";
import pg from "pg";
import { Refusal } from "../../errors.ts";
import type { Logger } from "../../telemetry/log.ts";
import { connectionOptions } from "./database.ts";
import { type LockMode, lockGivingWay, type TableLocks } from "./give-way.ts";
import { migrationFiles } from "./migration-files.ts";

/** The names of the migrations (file names without `.sql`), in the order of application. */
export async function listMigrations(): Promise<string[]> {
  return [...migrationFiles().keys()].sort();
}

/** The migrations; before the first of them, the tables that the missing ones change are locked. */
function providerOf(missing: readonly string[]): MigrationProvider {
  let isLocked = false;
  return {
    async getMigrations() {
      const migrations: Record<string, Migration> = {};
      for (const [name, text] of migrationFiles()) {
        migrations[name] = {
          async up(db) {
            if (!isLocked) await lockTables(db, missing);
            isLocked = true;
            // Without parameters the text is sent as a simple query, which may hold many
            // statements.
            await sql.raw(text).execute(db);
          },
        };
      }
      return migrations;
    },
  };
}

/**
 * The locks that a migration declares: a line "-- locks in MODE mode: TABLE, …" (or several) names
 * the tables from before the migration that it changes
 * (test/integration/store/migration-locks.test.ts).
 */
export function locksOf(text: string): Map<LockMode, string[]> {
  const locks = new Map<LockMode, string[]>();
  for (const [, mode, tables] of text.matchAll(/^-- locks in ([a-z ]+) mode: (.*)$/gm)) {
    const known = locks.get(mode as LockMode) ?? [];
    locks.set(mode as LockMode, [...known, ...(tables ?? "").split(/, */).filter(Boolean)]);
  }
  return locks;
}

/** Locks the tables of the missing migrations, so far as they are there: see give-way.ts. */
async function lockTables(db: Kysely<unknown>, missing: readonly string[]): Promise<void> {
  const files = migrationFiles();
  const { rows } = await sql<{ name: string }>`
    select relname as name from pg_class
    where relnamespace = current_schema()::regnamespace and relkind in ('r', 'p')`.execute(db);
  const present = new Set(rows.map(({ name }) => name));
  const locks = new Map<LockMode, string[]>();
  for (const [mode, tables] of missing.flatMap((name) => [...locksOf(files.get(name) ?? "")])) {
    const known = locks.get(mode) ?? [];
    locks.set(mode, [...new Set([...known, ...tables.filter((table) => present.has(table))])]);
  }
  await lockGivingWay((statement) => sql.raw(statement).execute(db), locks satisfies TableLocks);
}

/**
 * Applies the missing migrations, in one transaction: all or none. Of several concurrent starts,
 * one applies and the others wait and then find none missing. Uses its own connection without a
 * statement timeout, which should reach PostgreSQL directly and not through a pooler. Refuses a
 * database of a newer version. No statement of a running replica fails for it: the tables are
 * locked together before the first change, within a time in which PostgreSQL ends nobody.
 */
export async function migrate(url: string, log?: Logger): Promise<{ applied: string[] }> {
  const pool = new pg.Pool({
    ...connectionOptions({
      url,
      statementTimeoutMs: 0,
      connectTimeoutMs: 10_000,
      applicationName: "pinion migrate",
    }),
    // A connection for the lock and the migrations, in an open transaction, and a connection for
    // Kysely's own bookkeeping.
    max: 2,
  });
  pool.on("error", () => {});
  pool.on("connect", (client) => {
    client.on("error", () => {});
  });
  // biome-ignore lint/suspicious/noExplicitAny: a migration works on a schema that is no type yet.
  const db = new Kysely<any>({ dialect: new PostgresDialect({ pool }) });
  try {
    // Kysely's bookkeeping reads the whole catalogue twice; most starts find nothing to do.
    const missing = await findMissing(db);
    if (missing.length === 0) return { applied: [] };
    const provider = providerOf(missing);
    const { error, results } = await new Migrator({ db, provider }).migrateToLatest();
    if (error) {
      const failed = results?.find((result) => result.status === "Error");
      if (failed) log?.error({ err: error, migration: failed.migrationName }, "a migration failed");
      throw error;
    }
    const applied = (results ?? [])
      .filter((result) => result.status === "Success")
      .map((result) => result.migrationName);
    if (applied.length > 0) log?.info({ applied }, "the database schema was migrated");
    return { applied };
  } finally {
    await db.destroy();
  }
}

/** The migrations that the database lacks. Refuses migrations that this version does not know. */
async function findMissing(db: Kysely<unknown>): Promise<string[]> {
  const all = await listMigrations();
  const found = await sql<{ exists: boolean }>`
    select to_regclass('kysely_migration') is not null as exists`.execute(db);
  if (!found.rows[0]?.exists) return all;
  const { rows } = await sql<{ name: string }>`select name from kysely_migration order by name`.execute(db);
  const applied = new Set(rows.map((row) => row.name));
  const unknown = [...applied].filter((name) => !all.includes(name));
  if (unknown.length > 0) {
    throw new Refusal(
      "failed_precondition",
      `The database has migrations that this version of Pinion does not know (${unknown.join(", ")}): ` +
        "it was used by a newer version. Start that version, or restore an older database.",
    );
  }
  return all.filter((name) => !applied.has(name));
}
