import { sql } from "kysely";
import type { Db } from "./database.ts";

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

/** A watcher's windows, newest first, from before `beforeId`. */
export async function list(
  db: Db,
  filter: { orgId: string; watcherId: string; beforeId?: string | undefined; limit: number },
): Promise<WindowRow[]> {
  const { rows } = await sql<WindowRow>`
    select id, watcher_id as "watcherId", run_id as "runId", window_start as "windowStart", window_end as "windowEnd",
      model_used as "modelUsed", extracted_data as "extractedData", created_at as "createdAt"
    from "window"
    where org_id = ${filter.orgId} and watcher_id = ${filter.watcherId}
      ${filter.beforeId ? sql`and id < ${filter.beforeId}` : sql``}
    order by id desc
    limit ${filter.limit}
  `.execute(db);
  return rows;
}
