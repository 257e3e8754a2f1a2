/** Brings a database to the current schema. Migrations are SQL files and go forward only. */
import { Kysely, PostgresDialect, sql } from "kysely";
import { type Migration, type MigrationProvider, Migrator } from "kysely/migration";
import pg from "pg";
import { Refusal } from "../../errors.ts";
import type { Logger } from "../../telemetry/log.ts";
import { connectionOptions } from "./database.ts";
import { migrationFiles } from "./migration-files.ts";

/** The names of the migrations (file names without `.sql`), in the order of application. */
export async function listMigrations(): Promise<string[]> {
  return [...migrationFiles().keys()].sort();
}

const provider: MigrationProvider = {
  async getMigrations() {
    const migrations: Record<string, Migration> = {};
    for (const [name, text] of migrationFiles()) {
      migrations[name] = {
        async up(db) {
          // Without parameters the text is sent as a simple query, which may hold many statements.
          await sql.raw(text).execute(db);
        },
      };
    }
    return migrations;
  },
};

/**
 * Applies the missing migrations, in one transaction: all or none. Of several concurrent starts,
 * one applies and the others wait and then find none missing. Uses its own connection without a
 * statement timeout, which should reach PostgreSQL directly and not through a pooler. Refuses a
 * database of a newer version.
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
    if ((await findMissing(db)).length === 0) return { applied: [] };
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
