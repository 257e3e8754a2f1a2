/**
 * One PostgreSQL for all tests of a run, with a migrated template database for the tests' clones.
 */
import { rmSync } from "node:fs";
import { chmod, mkdtemp, readFile, rm, statfs, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import type { TestProject } from "vitest/node";
import { retainOnce } from "../../src/scheduler/retention.ts";
import { openDatabase } from "../../src/store/pg/database.ts";
import { type Embedded, startEmbedded } from "../../src/store/pg/embedded/cluster.ts";
import { migrate } from "../../src/store/pg/migrate.ts";
import { createLogger } from "../../src/telemetry/log.ts";
import { buildCommand } from "./built-command.ts";
import { newTemplateName, testDatabasesOf } from "./database-names.ts";
import { refuseDeadlocks } from "./deadlocks.ts";

declare module "vitest" {
  export interface ProvidedContext {
    /** Of a superuser, in any database of the test cluster. */
    clusterUrl: string;
    templateDatabase: string;
    /** The script of the command `pinion`, built of the sources as they are. */
    pinionMain: string;
  }
}

const memoryFolder = "/dev/shm";
/** Of the cluster with the databases of all workers, in bytes, several times over. */
const enoughMemory = 4 * 1024 ** 3;

/** Nothing is as old yet. */
const daysKept = 30;

/** The tests' data is worth nothing after a power failure. */
const testSettings = {
  fsync: "off",
  synchronous_commit: "off",
  full_page_writes: "off",
  wal_level: "minimal",
  max_wal_senders: "0",
  // Every clone makes a checkpoint, so little WAL is needed.
  min_wal_size: "32MB",
  max_wal_size: "128MB",
  autovacuum_naptime: "60s",
  // The data is in memory: a page is copied in less time than a worker is asked for the page.
  io_method: "sync",
  max_connections: "300",
  // Locks left by a test show as a failure of that test, not as a hang.
  deadlock_timeout: "200ms",
};

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const built = buildCommand();
  built.catch(() => {});
  const cluster = await openCluster();
  const template = newTemplateName();
  const admin = new pg.Client({ connectionString: cluster.url });
  admin.on("error", () => {});
  await admin.connect();
  if (cluster.isOurs) await makeSignInCheap(admin, new URL(cluster.url));
  await admin.query(`create database ${template}`);
  const url = new URL(cluster.url);
  url.pathname = `/${template}`;
  await migrate(url.href);
  await retain(url.href);
  if (cluster.isOurs) await tidyCatalogs(url.href);
  // No connections are allowed any more, so the template can be cloned at any moment.
  await admin.query(`alter database ${template} with allow_connections false`);

  project.provide("pinionMain", await built);
  project.provide("clusterUrl", cluster.url);
  project.provide("templateDatabase", template);
  return async () => {
    if (!cluster.isOurs) await dropLeft(admin, testDatabasesOf(template));
    await admin.query(`drop database ${template}`).catch(() => {});
    await admin.end();
    await cluster.close();
  };
}

/** Drops the databases that workers left at their ends. */
async function dropLeft(admin: pg.Client, prefix: string): Promise<void> {
  const { rows } = await admin.query<{ name: string }>(
    "select datname as name from pg_database where starts_with(datname, $1)",
    [prefix],
  );
  for (const { name } of rows) await admin.query(`drop database if exists ${name} with (force)`);
}

/**
 * The pass of retention that is due every hour, which each replica would make at its start: sixteen
 * partitions in every clone, and a hundred statements.
 */
async function retain(url: string): Promise<void> {
  const database = openDatabase({ url, poolMax: 1, applicationName: "pinion test" });
  const log = createLogger({ name: "test", level: "silent" });
  await retainOnce(database.db, { days: daysKept, conversationDays: daysKept, log });
  await database.close();
}

/**
 * Rewrites the template's catalogs, which the migrations have left with dead rows: every clone
 * copies them, and every connection reads them. The connection of the last statement leaves the
 * file of the relations that each connection opens first.
 */
async function tidyCatalogs(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query<{ name: string }>(
    `select oid::regclass::text as name from pg_class
     where relnamespace = 'pg_catalog'::regnamespace and relkind = 'r' and not relisshared`,
  );
  for (const { name } of rows) await client.query(`vacuum (full, freeze) ${name}`);
  await client.end();
  const last = new pg.Client({ connectionString: url });
  await last.connect();
  await last.query("select 1");
  await last.end();
}

/** Memory, if the machine has a file system of enough of it: cloning a database is making files. */
async function fastFolder(): Promise<string> {
  try {
    const { bavail, bsize } = await statfs(memoryFolder);
    if (bavail * bsize >= enoughMemory) return memoryFolder;
  } catch {
    // This system has no such folder.
  }
  return tmpdir();
}

/**
 * A sign-in by SCRAM is three messages and 4,096 rounds of a hash on both sides; the tests open ten
 * connections for each replica. A password in clear text is one message, and a wrong one is refused
 * all the same.
 */
async function makeSignInCheap(admin: pg.Client, { username, password }: URL): Promise<void> {
  await admin.query("set scram_iterations = 1");
  await admin.query(
    `alter role ${admin.escapeIdentifier(username)} password ${admin.escapeLiteral(decodeURIComponent(password))}`,
  );
  const { rows } = await admin.query<{ hba_file: string }>("show hba_file");
  for (const { hba_file: file } of rows) {
    const rules = await readFile(file, "utf8");
    await writeFile(file, rules.replaceAll("scram-sha-256", "password"));
  }
  await admin.query("select pg_reload_conf()");
}

async function openCluster(): Promise<{ url: string; isOurs: boolean; close(): Promise<void> }> {
  const given = process.env.PINION_TEST_DATABASE_URL;
  if (given) return { url: given, isOurs: false, close: async () => {} };
  const dataDir = await mkdtemp(join(await fastFolder(), "pinion-test-"));
  // As root, PostgreSQL runs as another user, who needs to traverse the directory.
  await chmod(dataDir, 0o711);
  const embedded: Embedded = await startEmbedded({ dataDir, settings: testSettings });
  // An interrupted run does not call the teardown.
  const kill = () => {
    try {
      process.kill(embedded.pid, "SIGQUIT");
    } catch {
      // PostgreSQL has already ended.
    }
    // The directory may lie in memory.
    rmSync(dataDir, { recursive: true, force: true, maxRetries: 3 });
  };
  process.once("exit", kill);
  return {
    url: embedded.url,
    isOurs: true,
    close: async () => {
      process.off("exit", kill);
      await embedded.stop();
      await refuseDeadlocks(join(dataDir, "postgres.log"));
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}
