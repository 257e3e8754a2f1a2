import { type Selectable, sql } from "kysely";
import { findSource } from "../people/sources.ts";
import type { Db } from "../pg/database.ts";
import type { EventTable, Json } from "../pg/schema.ts";
import { unnest } from "../pg/unnest.ts";

export type EventRow = Selectable<EventTable>;

/** An event to be. `kind` is "noun.verb"; `data` says what changed and never holds a secret. */
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
 * Appends events of one org. ALWAYS the last statement before the commit: it takes the org's lock and keeps it until
 * then, so that `seq` rises in the order of the commits and a reader that resumes after a seq misses nothing.
 *
 * An event of a call says where the call came from; what Pinion did by itself meanwhile (actor "pinion") does not.
 */
export function append(tx: Db, orgId: string, events: readonly Omit<NewEvent, "orgId">[]): Promise<void> {
  return appendAll(
    tx,
    events.map((event) => ({ ...event, orgId })),
  );
}

/** As {@link append}, for events of many orgs; their locks are taken in one order, so that two writers cannot deadlock. */
export async function appendAll(tx: Db, events: readonly NewEvent[]): Promise<void> {
  if (events.length === 0) return;
  const source = sourceJson();
  const input = unnest("i", events, {
    org_id: ["text", (event) => event.orgId],
    kind: ["text", (event) => event.kind],
    actor: ["text", (event) => event.actor],
    run_id: ["uuid", (event) => event.runId ?? null],
    watcher_id: ["uuid", (event) => event.watcherId ?? null],
    device_id: ["uuid", (event) => event.deviceId ?? null],
    data: ["jsonb", (event) => JSON.stringify(event.data ?? {})],
    source: ["jsonb", (event) => (event.actor === "pinion" ? null : source)],
  });
  const orgIds = [...new Set(events.map((event) => event.orgId))];
  // The count makes every lock come before the first row, and so before its seq; the clock is read after them as well.
  await sql`
    with locked as materialized (
      select pg_advisory_xact_lock(k.key)
      from (
        select distinct hashtextextended('event ' || o.org_id, 0) as key
        from unnest(${orgIds}::text[]) as o(org_id) order by 1
      ) k
    )
    insert into event (org_id, at, kind, actor, run_id, watcher_id, device_id, data, source)
    select org_id, clock_timestamp(), kind, actor, run_id, watcher_id, device_id, data, source
    from (
      select i.* from (select count(*) as locks from locked) l cross join ${input} where l.locks > 0 order by i.ord
    ) ordered`.execute(tx);
}

/** The call that this is part of, as `event.source` has it; null outside of any. */
function sourceJson(): string | null {
  const source = findSource();
  if (!source) return null;
  const { address, tokenId, userAgent, requestId } = source;
  return JSON.stringify({ address, token_id: tokenId, user_agent: userAgent, request_id: requestId });
}

/** In the words of the index event_kind. */
const kindsOfEveryRun = ["run.created", "run.completed"];

/** The org's events after a seq, oldest first, at most `limit`. */
export function listAfter(
  db: Db,
  options: { orgId: string; afterSeq: number; limit: number },
): Promise<EventRow[]> {
  return db
    .selectFrom("event")
    .selectAll()
    .where("org_id", "=", options.orgId)
    .where("seq", ">", options.afterSeq)
    .orderBy("seq")
    .limit(options.limit)
    .execute();
}

/**
 * The org's events, newest first, at most `limit`: those before `beforeSeq`, about `runId`, and of a kind that begins
 * with one of `kinds`, each where given.
 */
export function list(
  db: Db,
  options: {
    orgId: string;
    limit: number;
    beforeSeq?: number | undefined;
    runId?: string | undefined;
    kinds?: readonly string[];
  },
): Promise<EventRow[]> {
  let query = db
    .selectFrom("event")
    .selectAll()
    .where("org_id", "=", options.orgId)
    .orderBy("seq", "desc")
    .limit(options.limit);
  if (options.beforeSeq !== undefined) query = query.where("seq", "<", options.beforeSeq);
  if (options.runId !== undefined) query = query.where("run_id", "=", options.runId);
  if (options.kinds && options.kinds.length > 0) {
    const { kinds } = options;
    // One condition for each, so that the index on the kinds can be used.
    query = query.where((eb) => eb.or(kinds.map((kind) => sql<boolean>`starts_with(kind, ${kind})`)));
    // Said in the words of that index, which leaves out what every run leaves: of those, the next one is never far.
    if (!kindsOfEveryRun.some((often) => kinds.some((kind) => often.startsWith(kind))))
      query = query.where(sql<boolean>`kind not in ('run.created', 'run.completed')`);
  }
  return query.execute();
}

/** The seq of the org's latest committed event; 0 if it has none. */
export async function head(db: Db, options: { orgId: string }): Promise<number> {
  const row = await db
    .selectFrom("event")
    .select((eb) => eb.fn.max("seq").as("seq"))
    .where("org_id", "=", options.orgId)
    .executeTakeFirst();
  return row?.seq ?? 0;
}

/** The highest seq of the org's events that retention has deleted; 0 if it has deleted none. */
export async function deletedThrough(db: Db, options: { orgId: string }): Promise<number> {
  const row = await db
    .selectFrom("org")
    .select("events_deleted_through")
    .where("id", "=", options.orgId)
    .executeTakeFirst();
  return row?.events_deleted_through ?? 0;
}
