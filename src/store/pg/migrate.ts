/** Brings a database to the schema of this version. Migrations are SQL files and go forward only. */
import { Kysely, PostgresDialect, sql } from "kysely";
import { type Migration, type MigrationProvider, Migrator } from "kysely/migration";
import pg from "pg";
import { Refusal } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { connectionOptions } from "./database.ts";
import { migrationFiles } from "./migration-files.ts";

/** The migrations of this version by name (the file's without `.sql`), in the order in which they are applied. */
export async function listMigrations(): Promise<string[]> {
  return [...migrationFiles().keys()].sort();
}

const provider: MigrationProvider = {
  async getMigrations() {
    const migrations: Record<string, Migration> = {};
    for (const [name, text] of migrationFiles()) {
      migrations[name] = {
        async up(db) {
          // Without parameters it travels as one simple query, which may hold many statements.
          await sql.raw(text).execute(db);
        },
      };
    }
    return migrations;
  },
};

/**
 * Applies what is missing, in one transaction: all of it or nothing. When several start at once, one applies and the
 * others wait for it and then find nothing to do. Uses a connection of its own without a statement timeout, which
 * should lead to PostgreSQL itself and not to a pooler. Refuses a database that is newer than this version.
 */
export async function migrate(url: string, log?: Logger): Promise<{ applied: string[] }> {
  const pool = new pg.Pool({
    ...connectionOptions({
      url,
      statementTimeoutMs: 0,
      connectTimeoutMs: 10_000,
      applicationName: "pinion migrate",
    }),
    // One for the lock and the migrations, which hold a transaction open, and one for Kysely's own bookkeeping.
    max: 2,
  });
  pool.on("error", () => {});
  pool.on("connect", (client) => {
    client.on("error", () => {});
  });
  // biome-ignore lint/suspicious/noExplicitAny: a migration works on a schema that is no type yet.
  const db = new Kysely<any>({ dialect: new PostgresDialect({ pool }) });
  try {
    await requireKnownMigrations(db);
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

async function requireKnownMigrations(db: Kysely<unknown>): Promise<void> {
  const found = await sql<{ exists: boolean }>`
    select to_regclass('kysely_migration') is not null as exists`.execute(db);
  if (!found.rows[0]?.exists) return;
  const applied = await sql<{ name: string }>`select name from kysely_migration order by name`.execute(db);
  const known = new Set(await listMigrations());
  const unknown = applied.rows.map((row) => row.name).filter((name) => !known.has(name));
  if (unknown.length > 0) {
    throw new Refusal(
      "failed_precondition",
      `The database has migrations that this version of Pinion does not know (${unknown.join(", ")}): ` +
        "it was used by a newer version. Start that version, or restore an older database.",
    );
  }
}
