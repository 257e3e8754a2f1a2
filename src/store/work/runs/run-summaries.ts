import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import type { RunRow } from "./runs.ts";

/**
 * Summaries of runs for other lists: the last run of each device, and the recent runs of each
 * watcher.
 */

export type RunSummary = Pick<
  RunRow,
  "id" | "watcherId" | "status" | "skipReason" | "dueAt" | "startedAt" | "finishedAt" | "durationMs"
>;

/**
 * Days searched first, because most devices ended a run within them: an older run needs a search in
 * every daily partition.
 */
const soonDays = 2;

const ended = sql`id, watcher_id, status, skip_reason, due_at, started_at, finished_at, duration_ms`;
const live = sql`id, watcher_id, status, null::text as skip_reason, due_at, started_at, null::timestamptz as finished_at,
  null::bigint as duration_ms`;
const summary = sql`l.id, l.watcher_id as "watcherId", l.status, l.skip_reason as "skipReason", l.due_at as "dueAt",
  l.started_at as "startedAt", l.finished_at as "finishedAt", l.duration_ms as "durationMs"`;

/**
 * For each device, by id, the newest run that is claimed or running; else the newest that ended
 * within the last two days; else the newest that ended. Devices without a run are left out.
 */
export async function lastOfDevices(
  db: Db,
  devices: { orgId: string; deviceIds: readonly string[] },
): Promise<Map<string, RunSummary>> {
  if (devices.deviceIds.length === 0) return new Map();
  const { rows } = await sql<RunSummary & { deviceId: string }>`
    select d.id as "deviceId", ${summary}
    from unnest(${devices.deviceIds as string[]}::uuid[]) as d(id)
      cross join lateral (
        select * from (
          (select 1 as choice, ${live} from run
            where org_id = ${devices.orgId} and device_id = d.id and status <> 'pending' order by id desc limit 1)
          union all
          (select 2, ${ended} from run_finished
            where org_id = ${devices.orgId} and device_id = d.id and finished_at > now() - ${soonDays} * interval '1 day'
            order by id desc limit 1)
          union all
          (select 3, ${ended} from run_finished
            where org_id = ${devices.orgId} and device_id = d.id order by id desc limit 1)
        ) choices
        -- In the order in which they are written: those that are not needed are never looked for.
        limit 1
      ) l
  `.execute(db);
  return new Map(rows.map(({ deviceId, ...run }) => [deviceId, run]));
}

/** For each watcher, by id, its ended runs, newest first, at most `limit`. */
export async function recentOfWatchers(
  db: Db,
  watchers: { orgId: string; watcherIds: readonly string[]; limit: number },
): Promise<Map<string, RunSummary[]>> {
  const runs = new Map<string, RunSummary[]>(watchers.watcherIds.map((id) => [id, []]));
  if (runs.size === 0) return runs;
  const { rows } = await sql<RunSummary>`
    select ${summary}
    from unnest(${watchers.watcherIds as string[]}::uuid[]) as w(id)
      cross join lateral (
        select ${ended} from run_finished
        where org_id = ${watchers.orgId} and watcher_id = w.id order by id desc limit ${watchers.limit}
      ) l
  `.execute(db);
  // The rows of one statement, by watcher; a watcher's rows come in the order of the index.
  for (const run of rows) runs.get(run.watcherId)?.push(run);
  return runs;
}
