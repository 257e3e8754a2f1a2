import { sql } from "kysely";
import type { Db } from "./database.ts";

/**
 * The identity of the database: the cluster's identifier, and its timeline, which grows with every
 * promotion. Results acknowledged on one timeline may be missing on the next, if the standby
 * lagged.
 */
export type Incarnation = {
  systemIdentifier: string;
  timeline: number;
  position: string;
  /**
   * Where the timeline began: the earlier timeline's transactions up to this position are in this
   * database. Undefined: unknown.
   */
  safePosition?: string | undefined;
};

/** Undefined for a user without the right, and on a standby. */
export async function read(db: Db): Promise<Incarnation | undefined> {
  const { rows } = await sql<Omit<Incarnation, "safePosition">>`
    select (select system_identifier from pg_control_system())::text as "systemIdentifier",
      ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int as timeline,
      pg_current_wal_lsn()::text as position
    where not pg_is_in_recovery()
  `.execute(db);
  return rows[0];
}

/**
 * The end of the write-ahead log that a promoted standby had replayed: the beginning of its
 * timeline. Undefined for a server that started without recovery. Right only until the server
 * recovers from a crash, so a caller asks once, as soon as the new timeline is seen.
 */
export async function findBeginning(db: Db): Promise<string | undefined> {
  const { rows } = await sql<{ position: string | null }>`
    select pg_last_wal_replay_lsn()::text as position where not pg_is_in_recovery()
  `.execute(db);
  return rows[0]?.position ?? undefined;
}

/**
 * The database of work that was begun in the database `before` and has ended, as far as known.
 * After a failover meanwhile the former database is named: the work may be lost with it, and a
 * device offers a result again only to another database than the answer's.
 */
export function storedIn(
  before: Incarnation | undefined,
  now: Incarnation | undefined,
): Incarnation | undefined {
  return before && now && !isSame(before, now) ? before : now;
}

export const isSame = (one: Incarnation, other: Incarnation) =>
  one.systemIdentifier === other.systemIdentifier && one.timeline === other.timeline;
