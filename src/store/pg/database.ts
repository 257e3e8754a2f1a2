/**
 * The connection pool. Store functions take a `Db` first: the pool or an open transaction of it.
 *
 * - No wait is unlimited: for a free connection, for a statement, or for a transaction left open.
 * - The death of a backend, idle or in use, is an error of the call that used it and never of the
 *   process.
 * - A connection returned in the middle of a transaction, or after the server ended it, is not used
 *   again.
 */
import { setTimeout as delay } from "node:timers/promises";
import { Kysely, PostgresDialect, type PostgresPool, sql, type Transaction } from "kysely";
import pg from "pg";
import { codeOf } from "../../errors.ts";
import type { Logger } from "../../telemetry/log.ts";
import { isOutdated } from "./failures.ts";
import { noteLast, writingLast } from "./last.ts";
import { Lender } from "./lending.ts";
import { boundedOpening } from "./pooled.ts";
import { savingTrips } from "./round-trips.ts";
import type { Schema } from "./schema/schema.ts";
import { openingOptions, openingParameters } from "./session-settings.ts";
import { confinement } from "./tenancy.ts";
import { parseMoment } from "./values/moments.ts";

/** A connection pool or an open transaction. */
export type Db = Kysely<Schema>;

export type Database = {
  /** For work across orgs. */
  db: Db;
  /**
   * The same pool for requests: within {@link withinOrg} only one org's rows are visible, outside
   * of it none.
   */
  tenantDb: Db;
  /** Numbers of open connections, of idle connections, and of callers waiting for a connection. */
  stats(): { open: number; idle: number; waiting: number };
  /** Number of connections opened so far. */
  opened(): number;
  /**
   * Milliseconds since the database last answered a statement; infinite before the first answer,
   * and after a connection broke, until the next answer.
   */
  answeredAgoMs(): number;
  /**
   * Waits for running statements (at most the statement timeout) and closes all connections.
   * Idempotent.
   */
  close(): Promise<void>;
};

export type DatabaseOptions = {
  url: string;
  poolMax: number;
  /** Connections that are not closed when they are idle. Default 0. */
  kept?: number;
  /** Maximum milliseconds of a statement; 0 for no limit. */
  statementTimeoutMs?: number;
  /**
   * Milliseconds after the statement timeout until a connection without an answer counts as dead.
   */
  silenceMs?: number;
  /** Maximum milliseconds that a caller waits for a connection. */
  connectTimeoutMs?: number;
  /** Shown in pg_stat_activity. */
  applicationName?: string;
  /** A pooler in transaction mode is in between (see pooled.ts). */
  isPooled?: boolean;
  log?: Logger;
};

const statementTimeoutMsDefault = 15_000;
/** Twice the statement timeout: a transaction idle for longer has lost its owner. */
const idleInTransactionTimeoutMs = 30_000;
const connectTimeoutMsDefault = 5_000;
/**
 * pg's own default of 10 s makes a pool reconnect (a new process in PostgreSQL, and SCRAM) at every
 * lull.
 */
const idleTimeoutMs = 60_000;

const silenceMsDefault = 5_000;

const int8 = 20;
const timestamptz = 1184;

/**
 * Parsers for the pool's results: int8 as a number (the values here, counters, milliseconds and
 * epochs, stay far below 2^53), and moments.
 */
const types: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: "text" | "binary") => {
    if (format !== "binary" && oid === int8) return Number;
    if (format !== "binary" && oid === timestamptz) return parseMoment;
    return pg.types.getTypeParser(oid, format);
  }) as typeof pg.types.getTypeParser,
};

/** The options of every connection. */
export function connectionOptions(options: {
  url: string;
  statementTimeoutMs: number;
  silenceMs?: number | undefined;
  connectTimeoutMs: number;
  applicationName: string;
  isPooled?: boolean | undefined;
}): pg.ClientConfig {
  return {
    connectionString: options.url,
    application_name: options.applicationName,
    connectionTimeoutMillis: options.connectTimeoutMs,
    // Poolers refuse the startup options.
    ...(options.isPooled
      ? {}
      : {
          // All rows are looked up by keys, in tables in memory or on a disk without seek times. A
          // kept plan (prepared.ts) may be made while a table is empty, and is used later: so no
          // plan reads whole tables where an index exists. Options in the URL take precedence.
          options: `-c random_page_cost=1.1 -c enable_seqscan=off ${openingOptions}`,
          statement_timeout: options.statementTimeoutMs,
          idle_in_transaction_session_timeout: idleInTransactionTimeoutMs,
        }),
    // The server's own timeout has no effect when the server is unreachable. The client's timeout
    // is later, so that it never gives up on a statement that the server still executes.
    ...(options.statementTimeoutMs > 0
      ? { query_timeout: options.statementTimeoutMs + (options.silenceMs ?? silenceMsDefault) }
      : {}),
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    types,
  };
}

/** A connection through a pooler, opened with the parameters that poolers preserve. */
class PooledClient extends pg.Client {
  getStartupConf(): Record<string, string> {
    const own = pg.Client.prototype as unknown as { getStartupConf(): Record<string, string> };
    return { ...own.getStartupConf.call(this), ...openingParameters };
  }
}

/**
 * Opens a pool. Connects lazily: an unreachable database shows at the first statement (see {@link
 * isUnavailable}).
 */
export function openDatabase(options: DatabaseOptions): Database {
  const statementTimeoutMs = options.statementTimeoutMs ?? statementTimeoutMsDefault;
  const connectTimeoutMs = options.connectTimeoutMs ?? connectTimeoutMsDefault;
  const pool = new pg.Pool({
    ...connectionOptions({
      url: options.url,
      statementTimeoutMs,
      isPooled: options.isPooled,
      silenceMs: options.silenceMs,
      connectTimeoutMs,
      applicationName: options.applicationName ?? "pinion",
    }),
    max: options.poolMax,
    min: options.kept ?? 0,
    idleTimeoutMillis: idleTimeoutMs,
    ...(options.isPooled ? { Client: PooledClient } : {}),
  });
  const { doomed, opened, answeredAgoMs } = watchConnections(pool, options);
  const lending = { pool, doomed, max: options.poolMax, timeoutMs: connectTimeoutMs, log: options.log };
  const kept = new Lender(lending);
  const openingOf = options.isPooled
    ? boundedOpening({ statementTimeoutMs, idleInTransactionTimeoutMs })
    : () => ({ settings: [], isForSingles: false });
  const areKept = !options.isPooled;
  const db = kyselyOf(savingTrips(kept, { openingOf: () => openingOf, areKept }));
  const confined = () => {
    const settings = confinement();
    return async (client: pg.PoolClient) => ({
      settings: [...(await openingOf(client)).settings, settings],
      isForSingles: true,
    });
  };
  // The pool is the other Kysely's to close.
  const tenantDb = kyselyOf({ ...savingTrips(kept, { openingOf: confined, areKept }), end: async () => {} });
  let closing: Promise<void> | undefined;
  return {
    db,
    tenantDb,
    stats: () => ({ open: pool.totalCount, idle: pool.idleCount, waiting: kept.waiting }),
    opened,
    answeredAgoMs,
    close: () => {
      // Kysely closes the pool only if the pool was used.
      closing ??= Promise.all([tenantDb.destroy(), db.destroy()]).then(() =>
        pool.ending ? undefined : pool.end(),
      );
      return closing;
    },
  };
}

const kyselyOf = (pool: PostgresPool) => new Kysely<Schema>({ dialect: new PostgresDialect({ pool }) });

/**
 * Counts the pool's connections, and notes their answers and those that no caller may use again.
 */
function watchConnections(pool: pg.Pool, { log }: DatabaseOptions) {
  const doomed = new WeakSet<object>();
  let opened = 0;
  let answeredAt = Number.NEGATIVE_INFINITY;
  // Without the two listeners the death of an idle backend (the first) or a backend in use (the
  // second) ends the process.
  const broke = (message: string) => (error: Error) => {
    answeredAt = Number.NEGATIVE_INFINITY;
    log?.debug({ err: error }, message);
  };
  pool.on("error", broke("an idle database connection broke"));
  pool.on("connect", (client) => {
    opened += 1;
    client.on("error", broke("a database connection broke"));
    connectionOf(client).on("readyForQuery", () => {
      answeredAt = performance.now();
    });
    connectionOf(client).on("errorMessage", (message) => {
      if (message.severity === "FATAL" || message.severity === "PANIC") doomed.add(client);
      // A migration changed the result type of a prepared statement: every further use of the
      // connection would fail.
      if (isOutdated(message.code)) doomed.add(client);
    });
  });
  return {
    doomed,
    opened: () => opened,
    answeredAgoMs: () => performance.now() - answeredAt,
  };
}

/** The protocol below a client, where a server's last words can be told from an ordinary error. */
function connectionOf(client: pg.PoolClient): {
  on(event: "errorMessage", listener: (message: { severity?: string; code?: string }) => void): void;
  on(event: "readyForQuery", listener: () => void): void;
} {
  return (client as unknown as { connection: ReturnType<typeof connectionOf> }).connection;
}

/** Maximum runs of a transaction that lost against others. */
const transactionAttemptsMax = 5;
/**
 * Maximum milliseconds of the random wait before a retry, times the number of the attempt; without
 * the wait, the loser would take its lock again before the winner wakes up.
 */
const retryWaitMs = 25;

/**
 * Runs `fn` in a READ COMMITTED transaction, and commits all of its writes or none, the ones of
 * last.ts at the end. With an open transaction, runs in the open transaction. After a serialization
 * failure or a deadlock `fn` runs again, at most 5 times in all with at most 250 ms of waiting, so
 * `fn` must have no effects outside of the database that a second run does not undo.
 */
export async function transaction<T>(db: Db, fn: (tx: Transaction<Schema>) => Promise<T>): Promise<T> {
  if (db.isTransaction) return fn(db as Transaction<Schema>);
  for (let attempt = 1; ; attempt++) {
    try {
      const opened = db.transaction().setIsolationLevel("read committed");
      return await opened.execute((tx) => writingLast(tx, fn));
    } catch (error) {
      if (attempt >= transactionAttemptsMax || !isLostRace(error)) throw error;
      await delay(Math.random() * retryWaitMs * attempt);
    }
  }
}

/**
 * Runs `fn` within the open transaction. If `fn` fails, its writes are undone, its locks stay, and
 * the error is returned.
 */
export async function undoOnFailure<T>(
  tx: Db,
  fn: () => Promise<T>,
): Promise<{ value: T } | { error: unknown }> {
  await sql`savepoint undoing`.execute(tx);
  const forgetLast = noteLast(tx);
  try {
    const value = await fn();
    await sql`release savepoint undoing`.execute(tx);
    return { value };
  } catch (error) {
    forgetLast();
    await sql`rollback to savepoint undoing`.execute(tx);
    await sql`release savepoint undoing`.execute(tx);
    return { error };
  }
}

/** Like {@link undoOnFailure}, and throws the error. */
export async function undoable<T>(tx: Db, fn: () => Promise<T>): Promise<T> {
  const done = await undoOnFailure(tx, fn);
  if ("error" in done) throw done.error;
  return done.value;
}

/** serialization_failure, deadlock_detected */
function isLostRace(error: unknown): boolean {
  const code = codeOf(error);
  return code === "40001" || code === "40P01";
}
