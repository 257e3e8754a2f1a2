import { sql } from "kysely";

/**
 * For a single statement whose rows may be lost: heartbeats, and accepts, which a device repeats in
 * its hello. The commit does not wait for the disk, and takes no part in the fsyncs that results
 * wait for; a crash of the database may lose the last second of such commits, in their order. A CTE
 * named `relaxed`; the statement must read it, otherwise PostgreSQL does not evaluate it.
 */
export const relaxed = sql`relaxed as materialized (select set_config('synchronous_commit', 'off', true) as is_off)`;
