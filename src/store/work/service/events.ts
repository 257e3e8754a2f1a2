import { type Selectable, sql } from "kysely";
import { findSource } from "../../people/sources.ts";
import type { Db } from "../../pg/database.ts";
import { lastly } from "../../pg/last.ts";
import { inCompany } from "../../pg/round-trips.ts";
import type { Json } from "../../pg/schema/schema-columns.ts";
import type { EventTable } from "../../pg/schema/schema-work.ts";
import { ofAnySize, unnest } from "../../pg/values/unnest.ts";
import { uuidsOf } from "../../pg/values/uuid-array.ts";
import { appendAlone, orderOf } from "./lone-events.ts";

export type EventRow = Selectable<EventTable>;

/** A new event. `kind` is "noun.verb"; `data` describes the change and never holds a secret. */
export type NewEvent = {
  orgId: string;
  kind: string;
  /** "user:<id>", "device:<id>", "service:<token id>" or "pinion". */
  actor: string;
  runId?: string | null;
  watcherId?: string | null;
  deviceId?: string | null;
  data?: Json;
};

/**
 * Appends events of one org, in the transaction's last statement, which is sent with the commit:
 * the org's lock is held until the commit, so that `seq` rises in the order of commits and a reader
 * that resumes after a seq misses nothing. All events of a transaction are one statement
 * (pg/last.ts).
 *
 * An event of a call records the source of the call; Pinion's own events (actor "pinion") do not.
 */
export function append(tx: Db, orgId: string, events: readonly Omit<NewEvent, "orgId">[]): Promise<void> {
  return appendAll(
    tx,
    events.map((event) => ({ ...event, orgId })),
  );
}

/**
 * Like {@link append}, for events of many orgs; the orgs' locks are taken in one order, so that two
 * writers cannot deadlock.
 */
export async function appendAll(tx: Db, events: readonly NewEvent[]): Promise<void> {
  if (events.length > 0 && !lastly(tx, writeAll, events)) await writeAll(tx, events);
}

async function writeAll(tx: Db, events: readonly NewEvent[]): Promise<void> {
  const rows = pack(events, sourceJson());
  const [row] = rows;
  if (row && events.length === 1) return appendAlone(tx, { ...row, isPacked: row.members !== undefined });
  const input = unnest("i", rows, {
    org_id: ["text", ({ event }) => event.orgId],
    kind: ["text", ({ event }) => event.kind],
    actor: ["text", ({ event }) => event.actor],
    run_id: ["uuid", ({ event, members }) => (members ? null : event.runId)],
    watcher_id: ["uuid", ({ event, members }) => (members ? null : event.watcherId)],
    device_id: ["uuid", ({ event, members }) => (members ? null : event.deviceId)],
    data: ["jsonb", ({ data }) => data],
    source: ["jsonb", ({ source }) => source],
    count: ["int", ({ members }) => members?.length ?? 1],
    last_member: ["int", ({ lastMember }) => lastMember],
  });
  // The subjects of all packed rows, of which each row takes its own: arrays within an array would
  // be texts within a text, and PostgreSQL would read each id twice.
  const members = rows.flatMap((row) => row.members ?? []);
  const idsOf = (idOf: (event: NewEvent) => string | null | undefined) =>
    sql`(${uuidsOf(members.map(idOf))}::uuid[])[last_member - count + 1:last_member]`;
  const orgIds = [...new Set(events.map((event) => event.orgId))];
  // The count makes all locks precede the first row, and so its seq; the clock is read after the
  // locks, too.
  await sql`${inCompany}${ofAnySize}
    with locked as materialized (
      select pg_advisory_xact_lock(k.key)
      from (
        select distinct ${orderOf(sql.ref("o.org_id"))} as key
        from unnest(${orgIds}::text[]) as o(org_id) order by 1
      ) k
    )
    insert into event_row (org_id, seq, at, kind, actor, run_id, watcher_id, device_id, data, source, seqs, run_ids,
      watcher_ids, device_ids)
    overriding system value
    select org_id, seqs[count], clock_timestamp(), kind, actor, run_id, watcher_id, device_id, data, source,
      case when last_member is not null then seqs end, ${idsOf((event) => event.runId)},
      ${idsOf((event) => event.watcherId)}, ${idsOf((event) => event.deviceId)}
    from (
      -- The limit cuts nothing off. Without it the planner expects a thousand numbers for each row, and finds no plan
      -- cheap enough to be kept.
      select o.*, array(select nextval('event_seq_seq') from generate_series(1, o.count) limit ${sql.raw(`${membersMax}`)}) as seqs
      from (
        select i.* from (select count(*) as locks from locked) l cross join ${input} where l.locks > 0 order by i.ord
      ) o
      -- Not merged into the query above, which would take numbers for each use of them.
      offset 0
    ) numbered`.execute(tx);
}

/**
 * A row to write: an event, or `members` that differ only in their subjects, with the place of the
 * last member among the members of all rows, from 1.
 */
type Row = {
  event: NewEvent;
  data: string;
  source: string | null;
  members?: NewEvent[];
  lastMember?: number;
};

/**
 * Maximum events per row. A larger row would be moved out of the table's pages (TOAST), at a higher
 * cost than another row.
 */
const membersMax = 32;

/**
 * Packs the two events of every run: equal events of an org about different runs become one row.
 * The other events keep their order, after the packed rows that begin before them.
 */
function pack(events: readonly NewEvent[], source: string | null): Row[] {
  const rows: Row[] = [];
  const open = new Map<string, Row & { members: NewEvent[] }>();
  let last: (Row & { members: NewEvent[] }) | undefined;
  for (const event of events) {
    const packed = packedOf(event, source);
    if (!packed) {
      const data = JSON.stringify(event.data ?? {});
      rows.push({ event, data, source: event.actor === "pinion" ? null : source });
      continue;
    }
    // Nearly always the row of the event before: ends come in the order of their orgs.
    if (last && last.members.length < membersMax && isAlike(last, event, packed.data)) {
      last.members.push(event);
      continue;
    }
    const name = `${event.orgId} ${event.kind} ${packed.data}`;
    const row = open.get(name);
    if (row && row.members.length < membersMax) {
      row.members.push(event);
      last = row;
    } else {
      const next = {
        event: { ...event, actor: packed.actor },
        data: packed.data,
        source: null,
        members: [event],
      };
      rows.push(next);
      open.set(name, next);
      last = next;
    }
  }
  let placed = 0;
  for (const row of rows) {
    if (!row.members) continue;
    placed += row.members.length;
    row.lastMember = placed;
  }
  return rows;
}

function isAlike(row: Row, event: NewEvent, data: string): boolean {
  return row.event.orgId === event.orgId && row.event.kind === event.kind && row.data === data;
}

/**
 * The data of an event for a packed row, without its subjects; undefined for an event that is not
 * packed. The view `event` unpacks.
 */
function packedOf(event: NewEvent, source: string | null): { actor: string; data: string } | undefined {
  const { kind, actor, runId, watcherId, deviceId, data } = event;
  if (!runId || !watcherId) return undefined;
  if (kind === "run.created" && actor === "pinion") return { actor, data: JSON.stringify(data ?? {}) };
  if (kind !== "run.completed" || source || !deviceId || actor !== `device:${deviceId}`) return undefined;
  const { window_id: windowId, ...rest } = (data ?? {}) as Record<string, unknown>;
  return windowId === runId ? { actor: "device", data: JSON.stringify(rest) } : undefined;
}

/** The source of the current call, in the form of `event.source`; null outside of a call. */
function sourceJson(): string | null {
  const source = findSource();
  if (!source) return null;
  const { address, tokenId, userAgent, requestId } = source;
  return JSON.stringify({ address, token_id: tokenId, user_agent: userAgent, request_id: requestId });
}

/** In the words of the index event_kind. */
const kindsOfEveryRun = ["run.created", "run.completed"];

/**
 * Unpacks rows into events; `e` has the rows, `p` the members of packed rows. The same text as in
 * the view `event`.
 */
const unpacked = sql`
  left join lateral unnest(e.seqs, e.run_ids, e.watcher_ids, e.device_ids) with ordinality
    as p (seq, run_id, watcher_id, device_id, place) on true`;
const columns = sql`
  e.org_id, coalesce(p.seq, e.seq) as seq, e.at, e.kind,
  case when e.actor = 'device' then 'device:' || p.device_id else e.actor end as actor,
  coalesce(p.run_id, e.run_id) as run_id, coalesce(p.watcher_id, e.watcher_id) as watcher_id,
  coalesce(p.device_id, e.device_id) as device_id,
  case when e.kind = 'run.completed' and p.run_id is not null then e.data || jsonb_build_object('window_id', p.run_id)
    else e.data end as data, e.source`;

/** The org's events after a seq, oldest first, at most `limit`. */
export async function listAfter(
  db: Db,
  options: { orgId: string; afterSeq: number; limit: number },
): Promise<EventRow[]> {
  const { orgId, afterSeq, limit } = options;
  // A packed row has its last event's seq, so a row with an event after `afterSeq` has a seq after
  // `afterSeq`.
  const { rows } = await sql<EventRow>`
    select ${columns}
    from (select * from event_row where org_id = ${orgId} and seq > ${afterSeq} order by seq limit ${limit}) e ${unpacked}
    where coalesce(p.seq, e.seq) > ${afterSeq}
    order by e.seq, p.place limit ${limit}
  `.execute(db);
  return rows;
}

/**
 * The time of a run's event relative to the run's start or end, by the transaction's clock: at most
 * `packedAfter` later and, if the clock is set meanwhile, at most `packedBefore` earlier. Limits
 * the search for a missing event.
 */
const packedBefore = sql.raw("interval '5 s'");
const packedAfter = sql.raw("interval '2 min'");

/** The rows of a run's events: its own rows, and the packed rows around its start and end. */
function rowsOfRun(orgId: string, runId: string) {
  const packed = (kind: string, moment: string) => sql`(
    select * from event_row
    where org_id = ${orgId} and seqs is not null and kind = ${kind} and run_ids @> array[${runId}::uuid]
      and at >= r.${sql.ref(moment)} - ${packedBefore} and at <= r.${sql.ref(moment)} + ${packedAfter}
    order by at limit 1)`;
  return sql`(
    select * from event_row where org_id = ${orgId} and run_id = ${runId}
    union all
    select f.* from (select created_at, finished_at from run_all where org_id = ${orgId} and id = ${runId}) r
      cross join lateral (
        ${packed("run.created", "created_at")} union all ${packed("run.completed", "finished_at")}
      ) f
  )`;
}

/**
 * The org's events, newest first, at most `limit`: before `beforeSeq`, about `runId`, and of a kind
 * that begins with one of `kinds`, each if given.
 */
export async function list(
  db: Db,
  options: {
    orgId: string;
    limit: number;
    beforeSeq?: number | undefined;
    runId?: string | undefined;
    kinds?: readonly string[];
  },
): Promise<EventRow[]> {
  const { orgId, limit, beforeSeq, runId, kinds = [] } = options;
  const rowsOf = runId === undefined ? sql`event_row` : rowsOfRun(orgId, runId);
  const where = [sql`org_id = ${orgId}`];
  if (kinds.length > 0) {
    // A condition for each kind, so that the index on the kinds can be used.
    where.push(
      sql`(${sql.join(
        kinds.map((kind) => sql`starts_with(kind, ${kind})`),
        sql` or `,
      )})`,
    );
    // The condition of the index, which leaves out the events of every run: such events are
    // frequent.
    if (!kindsOfEveryRun.some((often) => kinds.some((kind) => often.startsWith(kind))))
      where.push(sql`kind not in ('run.created', 'run.completed')`);
  }
  const found = [sql`true`];
  if (beforeSeq !== undefined) {
    where.push(sql`seq <= ${await findRowOf(db, { orgId, seq: beforeSeq })}`);
    found.push(sql`coalesce(p.seq, e.seq) < ${beforeSeq}`);
  }
  if (runId !== undefined) found.push(sql`coalesce(p.run_id, e.run_id) = ${runId}`);
  // An additional row, because the row with the event `beforeSeq` may have no earlier event.
  const { rows } = await sql<EventRow>`
    select ${columns}
    from (select * from ${rowsOf} rows_of where ${sql.join(where, sql` and `)} order by seq desc limit ${limit + 1}) e ${unpacked}
    where ${sql.join(found, sql` and `)}
    order by e.seq desc, p.place desc limit ${limit}
  `.execute(db);
  return rows;
}

/**
 * The seq of the row with the event `seq` or the next one: the row may have earlier events. Asked
 * for by itself, because PostgreSQL would read all rows after it if it were a part of a tenant's
 * condition.
 */
async function findRowOf(db: Db, { orgId, seq }: { orgId: string; seq: number }): Promise<number> {
  const row = await db
    .selectFrom("event_row")
    .select((eb) => eb.fn.min("seq").as("seq"))
    .where("org_id", "=", orgId)
    .where("seq", ">=", seq)
    .executeTakeFirst();
  return row?.seq ?? seq;
}

/** The seq of the org's latest committed event; 0 without events. */
export async function head(db: Db, options: { orgId: string }): Promise<number> {
  const row = await db
    .selectFrom("event_row")
    .select((eb) => eb.fn.max("seq").as("seq"))
    .where("org_id", "=", options.orgId)
    .executeTakeFirst();
  return row?.seq ?? 0;
}

/** The highest seq of the org's events deleted by retention; 0 for none. */
export async function deletedThrough(db: Db, options: { orgId: string }): Promise<number> {
  const row = await db
    .selectFrom("org")
    .select("events_deleted_through")
    .where("id", "=", options.orgId)
    .executeTakeFirst();
  return row?.events_deleted_through ?? 0;
}
