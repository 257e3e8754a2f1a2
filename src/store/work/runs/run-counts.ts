import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { onlyRow } from "../../pg/values/only-row.ts";
import { unnest } from "../../pg/values/unnest.ts";
import { dayMs, hourMs, startOf } from "../service/device-blocks.ts";
import { type CountedDays, type CountParts, countParts, minuteMs, type Range } from "./count-ranges.ts";

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

/**
 * Reads that found other sums than they had asked for, at most; each time a day was counted on
 * meanwhile.
 */
const readsMax = 5;

export async function summarize(db: Db, asked: RunCountsOf): Promise<RunCounts> {
  let state = asked.watcherId || asked.deviceId ? undefined : await findState(db, asked);
  for (let reads = 1; ; reads++) {
    const { found, counts } = await read(db, asked, reads < readsMax ? state : undefined);
    if (found === undefined || found === state) return counts;
    state = found;
  }
}

/**
 * As floating point: of whole numbers below 2^53 the sum is exact, and PostgreSQL adds up int8 as
 * decimals, slowly.
 */
const sumOfBusy = sql`sum(busy_ms::float8)`;

/** The counts from the sums of `state`; which sums there were, if any were asked for. */
async function read(
  db: Db,
  asked: RunCountsOf,
  state: string | undefined,
): Promise<{ found: string | undefined; counts: RunCounts }> {
  const [start, end] = [asked.start.getTime(), asked.end.getTime()];
  const parts = countParts({ start, end, spanMs: asked.spanMs }, daysOf(state));
  const found = state === undefined ? sql`` : sql`union all select null, (${stateOf(asked)}), 0, null, null`;
  const { rows } = await sql<Counted>`
    with ends as (${countedRows(asked, parts)}),
    spans as (
      select start, status, of_spans::int as runs from ends where is_span and of_spans > 0
      union all ${countedHours(asked, parts.days)}
    ), devices as (
      select device_id, of_devices::int as runs, busy_ms from ends where not is_span and of_devices > 0
      union all ${countedDevices(asked, parts)}
    )
    select start, status, sum(runs) as runs, null::uuid as "deviceId", null::int8 as "busyMs"
    from spans group by 1, 2 having sum(runs) <> 0
    union all
    (select null, null, sum(runs), device_id, ${sumOfBusy}::int8
    from devices group by device_id having sum(runs) <> 0 order by 3 desc, 4 limit ${busiestMax})
    ${found}`.execute(db);
  const spans = rows.flatMap(({ start, status, runs }) => (start && status ? [{ start, status, runs }] : []));
  const busiest = rows.flatMap(({ deviceId, runs, busyMs }) =>
    deviceId ? [{ deviceId, runs, busyMs: busyMs ?? 0 }] : [],
  );
  return {
    found: rows.find((row) => !row.start && row.status)?.status ?? undefined,
    counts: {
      spans: spans.sort((a, b) => a.start.getTime() - b.start.getTime() || compare(a.status, b.status)),
      busiest: busiest.sort((a, b) => b.runs - a.runs || compare(a.deviceId, b.deviceId)),
    },
  };
}

const compare = (a: string, b: string) => (a < b ? -1 : Number(a > b));
const datesOf = (days: readonly number[]) => days.map((day) => new Date(day).toISOString().slice(0, 10));

/** The days of the org with sums, and until when each is counted, as a text. */
const stateOf = ({ orgId, start, end }: RunCountsOf) => sql<string>`
  select coalesce(json_object_agg(day, coalesce(extract(epoch from until) * 1000, 0)::int8 order by day), '{}')::text
  from run_count where org_id = ${orgId}
    and day >= (${start}::timestamptz at time zone 'UTC')::date and day <= (${end}::timestamptz at time zone 'UTC')::date`;

async function findState(db: Db, asked: RunCountsOf): Promise<string> {
  const { rows } = await sql<{ state: string }>`select (${stateOf(asked)}) as state`.execute(db);
  return onlyRow(rows).state;
}

function daysOf(state = "{}"): CountedDays {
  return new Map(
    Object.entries(JSON.parse(state) as Record<string, number>).map(([day, until]) => {
      const at = startOf(day);
      return [at, until || at + dayMs];
    }),
  );
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
  const [begins, ends] = [
    new Date(Math.min(...rows.map(({ from }) => from))),
    new Date(Math.max(...rows.map(({ to }) => to))),
  ];
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
 * ends in: thousands of minutes, whose times are whole milliseconds since the first span's
 * beginning.
 */
function countedHours(asked: RunCountsOf, days: readonly number[]): RawBuilder<unknown> {
  const startMs = asked.start.getTime();
  const span = sql`${asked.spanMs}::int8`;
  const isWithin = (at: RawBuilder<unknown>, lengthMs: number) => sql`
    ${at} >= 0 and ${at} + ${sql.lit(lengthMs)} <= ${asked.end.getTime() - startMs}::int8
    and ${at} / ${span} = (${at} + ${sql.lit(lengthMs - 1)}) / ${span}`;
  const minuteAt = sql`(h.at + (m.nth - 1) * ${sql.lit(minuteMs)})`;
  return sql`
    select ${asked.start}::timestamptz + p.nth * ${asked.spanMs} * interval '1 millisecond', p.status, p.runs::int
    from (
      select p.at / ${span} as nth, h.status, sum(p.runs) as runs
      from (
        select status, runs, minutes, (extract(epoch from hour) * 1000)::int8 - ${startMs}::int8 as at from run_count_hour
        where org_id = ${asked.orgId} and day = any(${datesOf(days)}::date[])
          and hour > ${asked.start}::timestamptz - interval '1 hour' and hour < ${asked.end} offset 0
      ) h cross join lateral (
        select h.at, h.runs where ${isWithin(sql`h.at`, hourMs)}
        union all
        select ${minuteAt}, m.runs from unnest(h.minutes) with ordinality m (runs, nth)
        where m.runs <> 0 and not (${isWithin(sql`h.at`, hourMs)}) and ${isWithin(minuteAt, minuteMs)}
      ) p group by 1, 2
    ) p`;
}

/** By device, from the sums of blocks and their changes. */
function countedDevices({ orgId }: RunCountsOf, { blocks, blocked }: CountParts): RawBuilder<unknown> {
  const devices = sql`
    cross join lateral unnest(b.device_ids, b.runs, b.busy_ms) u (device_id, runs, busy_ms)
    where b.org_id = ${orgId}`;
  if (blocks.length === 0) return sql`select null, 0, 0 where false`;
  const asked = unnest("a", blocks, {
    start: ["timestamptz", ({ start }) => new Date(start)],
    hours: ["int", ({ hours }) => hours],
  });
  const within = blocked.map(
    ({ from, to }) => sql`(b.start >= ${new Date(from)} and b.start < ${new Date(to)})`,
  );
  return sql`
    select u.device_id, u.runs, u.busy_ms
    from ${asked} join run_count_devices b on b.start = a.start and b.hours = a.hours and not b.is_change ${devices}
    union all
    select u.device_id, u.runs, u.busy_ms from run_count_devices b ${devices}
      and b.is_change and (${sql.join(within, sql` or `)})`;
}
