import { sql } from "kysely";
import type { Db } from "./database.ts";

/**
 * The identity of the database: the cluster's identifier, and its timeline, which grows with every
 * promotion. Results acknowledged on one timeline may be missing on the next, if the standby
 * lagged.
 */
export type Incarnation = { systemIdentifier: string; timeline: number; position: string };

/** Undefined for a user without the right, and on a standby. */
export async function read(db: Db): Promise<Incarnation | undefined> {
  const { rows } = await sql<{ systemIdentifier: string; timeline: number; position: string }>`
    select (select system_identifier from pg_control_system())::text as "systemIdentifier",
      ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int as timeline,
      pg_current_wal_lsn()::text as position
    where not pg_is_in_recovery()
  `.execute(db);
  return rows[0];
}

export const isSame = (one: Incarnation, other: Incarnation) =>
  one.systemIdentifier === other.systemIdentifier && one.timeline === other.timeline;
