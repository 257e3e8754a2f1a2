/** A migrated database for each test. */
import { randomBytes } from "node:crypto";
import type { Socket } from "node:net";
import pg from "pg";
import { afterAll, afterEach, beforeAll, beforeEach, inject } from "vitest";
import { type Database, type Db, openDatabase } from "../../src/store/pg/database.ts";
import { testDatabasesOf } from "./database-names.ts";

export type TestDatabase = {
  url: string;
  db: Db;
  database: Database;
  /** Closes the connections, terminates all other connections, and removes the database. */
  drop(): Promise<void>;
};

const poolMax = 10;

/**
 * A new database, cloned from the migrated template; about 30 ms. The caller drops the database.
 */
export async function createTestDatabase(options: { isEmpty?: boolean } = {}): Promise<TestDatabase> {
  const name = `${testDatabasesOf(inject("templateDatabase"))}${randomBytes(6).toString("hex")}`;
  const template = options.isEmpty ? "template0" : inject("templateDatabase");
  // A copy of the template's files takes a fifth of the time of a copy through the WAL.
  await administer(`create database ${name} template ${template} strategy file_copy`);
  const url = new URL(inject("clusterUrl"));
  url.pathname = `/${name}`;
  const database = openDatabase({ url: url.href, poolMax, applicationName: "pinion test" });
  opened.set(url.href, database);
  return {
    url: url.href,
    db: database.db,
    database,
    drop: async () => {
      opened.delete(url.href);
      await database.close();
      await dropper.query(`drop database if exists ${name} with (force)`);
    },
  };
}

const opened = new Map<string, Database>();

/** The connections of an open test database. */
export function findOpened(url: string): Database | undefined {
  return opened.get(url);
}

/** A connection to the test cluster, as its superuser; opened by the first statement. */
class Administrator {
  #client: Promise<pg.Client> | undefined;
  #last: Promise<unknown> = Promise.resolve();

  /** Runs a statement after the earlier ones. */
  query(statement: string): Promise<unknown> {
    const running = this.#last.then(() => this.#run(statement));
    this.#last = running.catch(() => {});
    return running;
  }

  async #run(statement: string): Promise<void> {
    this.#client ??= this.#connect();
    const client = await this.#client.catch((error: unknown) => {
      this.#client = undefined;
      throw error;
    });
    await client.query(statement);
  }

  async #connect(): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: inject("clusterUrl"), keepAlive: true });
    // A test may end all connections of the cluster.
    client.on("error", () => {
      this.#client = undefined;
    });
    await client.connect();
    // An idle connection does not keep its worker.
    (client as unknown as { connection: { stream: Socket } }).connection.stream.unref();
    return client;
  }
}

/** The worker's own connections: one for the statements that tests wait for, one for the drops. */
const administrator = new Administrator();
const dropper = new Administrator();

/** Runs one statement on the test cluster, as its superuser. */
export async function administer(statement: string): Promise<void> {
  await administrator.query(statement);
}

/**
 * Gives every test (or, with `per: "file"`, all tests of the file together) a new database. The
 * returned properties read the current database, so use them within a test or a hook registered
 * later.
 */
export function useDatabase(options: { per?: "test" | "file" } = {}): Omit<TestDatabase, "drop"> {
  let current: TestDatabase | undefined;
  const open = async () => {
    current = await createTestDatabase();
  };
  const close = async () => {
    await current?.database.close();
    // PostgreSQL waits in steps of 100 ms for the ends of a database's connections. The next test
    // does not wait with it; the teardown of the run drops what a worker's end leaves.
    current?.drop().catch(() => {});
    current = undefined;
  };
  if (options.per === "file") {
    beforeAll(open);
    afterAll(close);
  } else {
    beforeEach(open);
    afterEach(close);
  }
  const get = () => {
    if (!current) throw new Error("the database exists within a test, not while tests are collected");
    return current;
  };
  return {
    get url() {
      return get().url;
    },
    get db() {
      return get().db;
    },
    get database() {
      return get().database;
    },
  };
}
