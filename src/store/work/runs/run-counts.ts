import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { unnest } from "../../pg/values/unnest.ts";
import { type CountParts, countParts, type Range } from "./count-ranges.ts";

/**
 * How runs ended, counted over spans of time. Of all runs of an org past days are read from their
 * sums (service/past-days.ts), as far as there are some; today, the parts of minutes and of days,
 * and the runs of a watcher or of a device are read from the ended runs. The numbers are the same.
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
export type RunCounts = {
  /** By span and status; a span without runs is left out. */
  spans: SpanCount[];
  /** The devices with the most ended runs, the busiest first. */
  busiest: DeviceWork[];
};

/** A span's count or a device's, the other's columns null. */
type Counted = {
  start: Date | null;
  status: string | null;
  runs: number;
  deviceId: string | null;
  busyMs: number | null;
};

export async function summarize(db: Db, asked: RunCountsOf): Promise<RunCounts> {
  const [start, end] = [asked.start.getTime(), asked.end.getTime()];
  const counted = asked.watcherId || asked.deviceId ? new Set<number>() : await findCountedDays(db, asked);
  const parts = countParts({ start, end, spanMs: asked.spanMs }, counted);
  const { rows } = await sql<Counted>`
    with ends as (${countedRows(asked, parts)}),
    spans as (
      select start, status, of_spans::int as runs from ends where is_span and of_spans > 0
      union all ${countedHours(asked, parts.days)}
    ), devices as (
      select device_id, of_devices::int as runs, busy_ms from ends where not is_span and of_devices > 0
      union all
      select device_id, sum(runs)::int, sum(busy_ms)::int8 from run_count_device
      where org_id = ${asked.orgId} and day = any(${datesOf(parts.wholeDays)}::date[]) group by 1
    )
    select start, status, sum(runs) as runs, null::uuid as "deviceId", null::int8 as "busyMs"
    from spans group by 1, 2 having sum(runs) <> 0
    union all
    (select null, null, sum(runs), device_id, sum(busy_ms)::int8
    from devices group by device_id having sum(runs) <> 0 order by 3 desc, 4 limit ${busiestMax})`.execute(
    db,
  );
  const spans = rows.flatMap(({ start, status, runs }) => (start && status ? [{ start, status, runs }] : []));
  const busiest = rows.flatMap(({ deviceId, runs, busyMs }) =>
    deviceId ? [{ deviceId, runs, busyMs: busyMs ?? 0 }] : [],
  );
  return {
    spans: spans.sort((a, b) => a.start.getTime() - b.start.getTime() || compare(a.status, b.status)),
    busiest: busiest.sort((a, b) => b.runs - a.runs || compare(a.deviceId, b.deviceId)),
  };
}

const compare = (a: string, b: string) => (a < b ? -1 : Number(a > b));
const datesOf = (days: readonly number[]) => days.map((day) => new Date(day).toISOString().slice(0, 10));

/** The days of the org with sums, by their beginning in ms. */
async function findCountedDays(db: Db, { orgId, start, end }: RunCountsOf): Promise<Set<number>> {
  const { rows } = await sql<{ day: string }>`
    select day::text from run_count where org_id = ${orgId}
      and day >= (${start}::timestamptz at time zone 'UTC')::date and day <= (${end}::timestamptz at time zone 'UTC')::date`.execute(
    db,
  );
  return new Set(rows.map(({ day }) => Date.parse(`${day}T00:00:00Z`)));
}

const spanOf = ({ start, spanMs }: RunCountsOf, at: RawBuilder<unknown>) =>
  sql`date_bin(${spanMs} * interval '1 millisecond', ${at}, ${start}::timestamptz)`;

const noRows = sql`select null::timestamptz as start, null::text as status, null::uuid as device_id, true as is_span,
  0 as of_spans, 0 as of_devices, 0::int8 as busy_ms where false`;

/** By span and status, and by device, in one pass over the rows. */
function countedRows(asked: RunCountsOf, { rows }: CountParts): RawBuilder<unknown> {
  const [first] = rows;
  if (!first) return noRows;
  // The bounds of all, which PostgreSQL chooses days and indexes by.
  const [begins, ends] = [new Date(first.from), new Date(Math.max(...rows.map(({ to }) => to)))];
  const where = [
    sql`org_id = ${asked.orgId}`,
    sql`finished_at >= ${begins}`,
    sql`finished_at < ${ends}`,
    ...(asked.watcherId ? [sql`watcher_id = ${asked.watcherId}`] : []),
    ...(asked.deviceId ? [sql`device_id = ${asked.deviceId}`] : []),
    ...(rows.length > 1 ? [sql`finished_at >= r.begins`, sql`finished_at < r.ends`] : []),
  ];
  const [ofSpans, ofDevices] =
    rows.length > 1
      ? [sql`r.of_spans`, sql`r.of_devices and e.status <> 'skipped'`]
      : [sql`${first.ofSpans}::boolean`, sql`${first.ofDevices}::boolean and e.status <> 'skipped'`];
  // The ends come from a select of their own (offset), of which PostgreSQL expects few spans: it
  // expects as many as ends otherwise, and sorts them all.
  const found = sql`(
      select ${spanOf(asked, sql`finished_at`)} as start, status, device_id, duration_ms
      from run_finished where ${sql.join(where, sql` and `)} offset 0
    ) e`;
  return sql`
    select e.start, e.status, e.device_id, grouping(e.device_id) = 1 as is_span,
      count(*) filter (where ${ofSpans}) as of_spans,
      count(*) filter (where ${ofDevices} and e.device_id is not null) as of_devices,
      coalesce(sum(e.duration_ms) filter (where ${ofDevices}), 0)::int8 as busy_ms
    from ${rows.length > 1 ? sql`${rangesOf(rows)} cross join lateral ${found}` : found}
    group by grouping sets ((e.start, e.status), (e.device_id))`;
}

const rangesOf = (rows: readonly Range[]) =>
  unnest("r", rows, {
    begins: ["timestamptz", ({ from }) => new Date(from)],
    ends: ["timestamptz", ({ to }) => new Date(to)],
    of_spans: ["boolean", ({ ofSpans }) => ofSpans],
    of_devices: ["boolean", ({ ofDevices }) => ofDevices],
  });

/**
 * By span and status, from the sums of hours, and of minutes in the hours that a span begins or
 * ends in.
 */
function countedHours(asked: RunCountsOf, days: readonly number[]): RawBuilder<unknown> {
  const isWithin = (at: RawBuilder<unknown>, length: RawBuilder<unknown>) => sql`
    ${at} >= ${asked.start} and ${at} + ${length} <= ${asked.end}
    and ${spanOf(asked, at)} = ${spanOf(asked, sql`${at} + ${length} - interval '1 microsecond'`)}`;
  const hour = sql`interval '1 hour'`;
  const minuteAt = sql`h.hour + (m.nth - 1) * interval '1 minute'`;
  return sql`
    select ${spanOf(asked, sql`p.at`)}, h.status, p.runs
    from run_count_hour h cross join lateral (
      select h.hour as at, h.runs where ${isWithin(sql`h.hour`, hour)}
      union all
      select ${minuteAt}, m.runs from unnest(h.minutes) with ordinality m (runs, nth)
      where m.runs <> 0 and not (${isWithin(sql`h.hour`, hour)}) and ${isWithin(minuteAt, sql`interval '1 minute'`)}
    ) p
    where h.org_id = ${asked.orgId} and h.day = any(${datesOf(days)}::date[])
      and h.hour > ${asked.start}::timestamptz - ${hour} and h.hour < ${asked.end}`;
}
