/**
 * Connections through a pooler in transaction mode (PgBouncer). The pooler refuses startup options,
 * and a `set` would stay with a server connection that others use next. So the limits of a
 * transaction are sent with its beginning (round-trips.ts). A single statement is limited by the
 * client's deadline, and by the database user's own default, if any (docs/scaling.md). Only if the
 * database's defaults differ from the required settings, a single statement gets its own
 * transaction.
 */
import type pg from "pg";
import type { Opening } from "./round-trips.ts";
import { readOtherwise, settingsOf } from "./session-settings.ts";

/**
 * Whether a pooler is in between: two URLs that lead to different hosts. A different user (for
 * migrations) or different parameters alone do not mean a pooler.
 */
export function isPooler(urls: { url: string; directUrl: string }): boolean {
  const [url, direct] = [URL.parse(urls.url), URL.parse(urls.directUrl)];
  if (!url || !direct) return urls.url !== urls.directUrl;
  return url.host !== direct.host || url.searchParams.get("host") !== direct.searchParams.get("host");
}

/** The opening of transactions through a pooler, for the clients of one pool. */
export function boundedOpening(limits: {
  statementTimeoutMs: number;
  idleInTransactionTimeoutMs: number;
}): (client: pg.PoolClient) => Promise<Opening> {
  const settings = settingsOf({
    statement_timeout: limits.statementTimeoutMs,
    idle_in_transaction_session_timeout: limits.idleInTransactionTimeoutMs,
  });
  // Each new connection reads the defaults again: they may be changed while replicas run.
  const known = new WeakSet<object>();
  let isOtherwise = false;
  return async (client) => {
    if (!known.has(client)) {
      isOtherwise = await hasOtherDefaults(client);
      known.add(client);
    }
    return { settings: [settings], isForSingles: isOtherwise };
  };
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
