import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";

/**
 * How runs ended, counted over spans of time. Reads the partitions of the days in question, of past
 * days the index of their ends (partitions.indexPast).
 */

const busiestMax = 10;

export type RunCountsOf = {
  orgId: string;
  start: Date;
  end: Date;
  spanMs: number;
  watcherId?: string | undefined;
  deviceId?: string | undefined;
};

export type SpanCount = { start: Date; status: string; runs: number };
export type DeviceWork = { deviceId: string; runs: number; busyMs: number };

function within(asked: RunCountsOf) {
  const where = [
    sql`org_id = ${asked.orgId}`,
    sql`finished_at >= ${asked.start}`,
    sql`finished_at < ${asked.end}`,
  ];
  if (asked.watcherId) where.push(sql`watcher_id = ${asked.watcherId}`);
  if (asked.deviceId) where.push(sql`device_id = ${asked.deviceId}`);
  return sql.join(where, sql` and `);
}

/** By span and status; a span without runs is left out. */
export async function perSpan(db: Db, asked: RunCountsOf): Promise<SpanCount[]> {
  // The spans come from a select of their own (offset), of which PostgreSQL expects few: it expects as many spans as
  // ends otherwise, and sorts them all.
  const { rows } = await sql<SpanCount>`
    select start, status, count(*)::int8 as runs
    from (
      select date_bin(${asked.spanMs} * interval '1 millisecond', finished_at, ${asked.start}::timestamptz) as start, status
      from run_finished where ${within(asked)} offset 0
    ) ends
    group by 1, 2 order by 1, 2`.execute(db);
  return rows;
}

/** The devices with the most ended runs, the busiest first. */
export async function busiest(db: Db, asked: RunCountsOf): Promise<DeviceWork[]> {
  const { rows } = await sql<DeviceWork>`
    select device_id as "deviceId", count(*)::int8 as runs, coalesce(sum(duration_ms), 0)::int8 as "busyMs"
    from run_finished where ${within(asked)} and device_id is not null and status <> 'skipped'
    group by 1 order by 2 desc, 1 limit ${busiestMax}`.execute(db);
  return rows;
}
