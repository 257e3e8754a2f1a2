import { sql } from "kysely";
import type { Db } from "../pg/database.ts";

/** Windows: the stored results of completed runs. settlements.ts writes them. */

export type WindowRow = {
  id: string;
  watcherId: string;
  runId: string;
  windowStart: Date;
  windowEnd: Date;
  modelUsed: string;
  extractedData: Record<string, unknown>;
  createdAt: Date;
};

/** The windows of a watcher or of a run, newest first, from before `beforeId`. */
export async function list(
  db: Db,
  filter: {
    orgId: string;
    watcherId?: string | undefined;
    runId?: string | undefined;
    beforeId?: string | undefined;
    limit: number;
  },
): Promise<WindowRow[]> {
  const where = [sql`org_id = ${filter.orgId}`];
  if (filter.watcherId) where.push(sql`watcher_id = ${filter.watcherId}`);
  // A run's window has its id.
  if (filter.runId) where.push(sql`id = ${filter.runId}`);
  if (filter.beforeId) where.push(sql`id < ${filter.beforeId}`);
  const { rows } = await sql<WindowRow>`
    select id, watcher_id as "watcherId", run_id as "runId", window_start as "windowStart", window_end as "windowEnd",
      model_used as "modelUsed", extracted_data as "extractedData", created_at as "createdAt"
    from "window"
    where ${sql.join(where, sql` and `)}
    order by id desc
    limit ${filter.limit}
  `.execute(db);
  return rows;
}
