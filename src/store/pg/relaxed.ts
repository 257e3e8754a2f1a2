import { sql } from "kysely";

/**
 * For a statement that stands alone and whose rows are no promise to anybody: heartbeats, and accepts, which a device repeats by
 * its hello. Its commit is not waited for until it is on the disk, and takes no part in the fsyncs that results wait for; a
 * crash of the database may lose the last second of it, in the order of the commits. A CTE of the name `relaxed`, which
 * the statement has to read, or it is not evaluated.
 */
export const relaxed = sql`relaxed as materialized (select set_config('synchronous_commit', 'off', true) as is_off)`;
