import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { storableJson } from "../../pg/values/storable.ts";

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

/** In the words of the view "window". */
const ofRuns = sql`
  id, watcher_id as "watcherId", id as "runId", window_start as "windowStart", window_end as "windowEnd",
  'device-cli' as "modelUsed",
  jsonb_build_object('kind', 'device_cli_output', 'output', output, 'is_truncated', is_output_truncated,
    'exit_code', exit_code, 'agent_kind', agent_kind) || coalesce(answer, '{}') as "extractedData",
  coalesce(stored_at, finished_at) as "createdAt"
  from run_finished`;
const kept = sql`
  id, watcher_id as "watcherId", run_id as "runId", window_start as "windowStart", window_end as "windowEnd",
  model_used as "modelUsed", extracted_data as "extractedData", created_at as "createdAt"
  from window_kept`;

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
  const { limit } = filter;
  const where = [sql`org_id = ${filter.orgId}`];
  if (filter.watcherId) where.push(sql`watcher_id = ${filter.watcherId}`);
  // A run's window has the run's id.
  if (filter.runId) where.push(sql`id = ${filter.runId}`);
  if (filter.beforeId) where.push(sql`id < ${filter.beforeId}`);
  const wanted = sql.join(where, sql` and `);
  // Each part in the order of its index: the view would sort all windows of the watcher.
  const { rows } = await sql<WindowRow>`
    (select ${ofRuns} where ${wanted} and output is not null order by id desc limit ${limit})
    union all
    (select ${kept} where ${wanted} order by id desc limit ${limit})
    order by id desc limit ${limit}
  `.execute(db);
  return rows;
}

/** The answer of a reporting agent, as stored in a window beside the output. */
export type Answer = { result: string; structured: unknown };

/** The keys that an answer adds to `extracted_data`, as JSON; null without an answer. */
export function answerOf({ answer }: { answer?: Answer | undefined }): string | null {
  if (!answer) return null;
  const { result, structured } = answer;
  return storableJson({
    ...(result === "" ? {} : { result }),
    ...(structured === undefined ? {} : { structured }),
  });
}
