/**
 * Connections through a pooler in transaction mode (PgBouncer). The pooler refuses startup options,
 * and a `set` would stay with a server connection that others use next. So the limits of a
 * transaction are sent with its beginning, as `set local`, in the same message. A single statement
 * is limited by the client's deadline, and by the database user's own default, if any
 * (docs/scaling.md). Only if the database's defaults differ from the required settings, a single
 * statement gets its own transaction, with two more round trips.
 */
import type { PostgresPool, PostgresPoolClient } from "kysely";
import type pg from "pg";
import { localSettings, readOtherwise } from "./session-settings.ts";

/**
 * Whether a pooler is in between: two URLs that lead to different hosts. A different user (for
 * migrations) or different parameters alone do not mean a pooler.
 */
export function isPooler(urls: { url: string; directUrl: string }): boolean {
  const [url, direct] = [URL.parse(urls.url), URL.parse(urls.directUrl)];
  if (!url || !direct) return urls.url !== urls.directUrl;
  return url.host !== direct.host || url.searchParams.get("host") !== direct.searchParams.get("host");
}

/** The pool, with limits sent at the beginning of each transaction. */
export function boundTransactions(
  pool: PostgresPool,
  bounds: { statementTimeoutMs: number; idleInTransactionTimeoutMs: number },
): PostgresPool {
  const settings =
    `set local statement_timeout = ${bounds.statementTimeoutMs}; ` +
    `set local idle_in_transaction_session_timeout = ${bounds.idleInTransactionTimeoutMs}; ${localSettings}`;
  // Each new connection reads the defaults again: they may be changed while replicas run.
  const known = new WeakSet<object>();
  let isOtherwise = false;
  const bounded = {
    options: (pool as unknown as { options: unknown }).options,
    async connect(): Promise<PostgresPoolClient> {
      const client = (await pool.connect()) as unknown as pg.PoolClient;
      if (!known.has(client)) {
        isOtherwise = await hasOtherDefaults(client);
        known.add(client);
      }
      const wrapped = {
        processID: (client as unknown as { processID: number }).processID,
        getTransactionStatus: () => client.getTransactionStatus(),
        async query(text: string, values?: unknown[]): Promise<unknown> {
          if (client.getTransactionStatus() !== "I") return client.query(text, values);
          if (isBegin(text)) return lastResult(await client.query(`${text}; ${settings}`));
          if (!isOtherwise) return client.query(text, values);
          return within(client, settings, () => client.query(text, values));
        },
        release: (failure?: Error | boolean) => client.release(failure),
      };
      return wrapped as unknown as PostgresPoolClient;
    },
    end: () => pool.end(),
  };
  return bounded as unknown as PostgresPool;
}

/** A connection whose defaults cannot be read returns to the pool at once, as broken. */
async function hasOtherDefaults(client: pg.PoolClient): Promise<boolean> {
  try {
    const { rows } = await client.query<{ is_otherwise: boolean }>(readOtherwise);
    return rows[0]?.is_otherwise === true;
  } catch (error) {
    client.release(error as Error);
    throw error;
  }
}

/** Runs a statement in a transaction that begins with `settings`. */
export async function within<T>(client: pg.PoolClient, settings: string, run: () => Promise<T>): Promise<T> {
  await client.query(`begin isolation level read committed; ${settings}`);
  try {
    const result = await run();
    await client.query("commit");
    return result;
  } catch (error) {
    // If the rollback fails too, the connection is still in a transaction, and is not used again.
    await client.query("rollback").catch(() => {});
    throw error;
  }
}

/**
 * Kysely's own statements about transactions come without parameters, "start transaction …" or
 * "begin" first.
 */
export function isBegin(text: string): boolean {
  return /^(begin|start transaction)\b/.test(text);
}

/** Several statements in one message have as many results. */
export function lastResult(results: unknown): unknown {
  return Array.isArray(results) ? results.at(-1) : results;
}
