/**
 * Connections that come through a pooler in transaction mode (PgBouncer). It refuses settings that a connection is opened
 * with, and what is `set` on one stays with a server connection that others use next. So the bounds of a transaction
 * travel with its beginning, `set local`, in the same message. What bounds a statement that stands alone is the
 * deadline on our side; and the database user's own default, where it has one (docs/scaling.md).
 */
import type { PostgresPool, PostgresPoolClient } from "kysely";
import type pg from "pg";
import { localSettings } from "./session-settings.ts";

/**
 * Whether a pooler stands in between: two URLs that lead to different places. Another user alone (for migrations) or
 * other parameters do not make a pooler.
 */
export function isPooler(urls: { url: string; directUrl: string }): boolean {
  const [url, direct] = [URL.parse(urls.url), URL.parse(urls.directUrl)];
  if (!url || !direct) return urls.url !== urls.directUrl;
  return url.host !== direct.host || url.searchParams.get("host") !== direct.searchParams.get("host");
}

/** The pool, whose transactions begin with their bounds. */
export function boundTransactions(
  pool: PostgresPool,
  bounds: { statementTimeoutMs: number; idleInTransactionTimeoutMs: number },
): PostgresPool {
  const settings =
    `set local statement_timeout = ${bounds.statementTimeoutMs}; ` +
    `set local idle_in_transaction_session_timeout = ${bounds.idleInTransactionTimeoutMs}; ${localSettings}`;
  const bounded = {
    options: (pool as unknown as { options: unknown }).options,
    async connect(): Promise<PostgresPoolClient> {
      const client = (await pool.connect()) as unknown as pg.PoolClient;
      const wrapped = {
        processID: (client as unknown as { processID: number }).processID,
        getTransactionStatus: () => client.getTransactionStatus(),
        async query(text: string, values?: unknown[]): Promise<unknown> {
          const begins = client.getTransactionStatus() === "I" && isBegin(text);
          return begins ? lastResult(await client.query(`${text}; ${settings}`)) : client.query(text, values);
        },
        release: (failure?: Error | boolean) => client.release(failure),
      };
      return wrapped as unknown as PostgresPoolClient;
    },
    end: () => pool.end(),
  };
  return bounded as unknown as PostgresPool;
}

/** Kysely's own statements about transactions come without parameters, "start transaction …" or "begin" first. */
export function isBegin(text: string): boolean {
  return /^(begin|start transaction)\b/.test(text);
}

/** Several statements in one message are answered by as many results. */
export function lastResult(results: unknown): unknown {
  return Array.isArray(results) ? results.at(-1) : results;
}
