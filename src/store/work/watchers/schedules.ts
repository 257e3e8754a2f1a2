import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { inCompany } from "../../pg/round-trips.ts";
import { onlyRow } from "../../pg/values/only-row.ts";
import { ofAnySize, ofFew, unnest } from "../../pg/values/unnest.ts";
import { type DeviceOffers, offersByRevision } from "./device-offers.ts";

/**
 * Schedules: their positions, and the watchers whose slots are due. slot-rows.ts writes the rows.
 *
 * Every writer of a watcher's run holds the watcher's row lock, so the questions "is a run active?"
 * and "where is the schedule?" have one answer until the commit (R1, R3).
 */

/** The origins of a run without a slot. */
export type StartSource = "manual" | "hook" | "after";

export type WatcherName = { orgId: string; watcherId: string };

/** The planner's facts about a locked watcher. */
export type DueWatcher = {
  orgId: string;
  watcherId: string;
  /**
   * The pin, copied into a run when recorded; null also for a watcher whose runs are placed, and
   * claimed afterwards.
   */
  deviceId: string | null;
  /** The watcher's runs are placed before they are claimed. */
  isGated: boolean;
  schedule: string | null;
  timeZone: string;
  overlap: "skip" | "queue_one" | "queue_all";
  catchup: "collapse" | "miss";
  catchupWindowMs: number;
  jitterMs: number;
  minCooldownMs: number;
  status: "active" | "paused" | "no_executor";
  nextSlotAt: Date | null;
  nextDueAt: Date | null;
  /** The latest slot with a row. */
  lastSlotAt: Date | null;
  lastRunAt: Date | null;
  windowCursorAt: Date | null;
  backoffUntil: Date | null;
  /** Today's consumption (UTC) against the day budget; null: no day budget. */
  budget: { tokensMax: number; costMicrosMax: number; tokens: number; costMicros: number } | null;
  hasAgent: boolean;
  /** The watcher's requirements of its device; null: none. */
  offers: DeviceOffers | null;
  hasActiveRun: boolean;
  /** The slot of a queue_one watcher that waits for the end of the active run. */
  queuedSlotAt: Date | null;
  /** The oldest slot that waits for the end of the active run: queued or backfilled. */
  backlogSlotAt: Date | null;
  backlogSource: "scheduled" | "backfill" | StartSource | null;
  /** For a waiting start: the id of its later run. */
  backlogRunId: string | null;
  /**
   * Read by {@link lockToStart} alone: the prompt of the current version, and what was asked
   * beside.
   */
  prompt?: string | null;
  beside?: unknown;
  /** The database's clock. */
  now: Date;
};

/**
 * Whether a watcher has an active run; a run that is spread over devices is active for each of them
 * by itself. The org is compared as an expression, and the look-up stays a look-up (`offset`), so
 * that PostgreSQL has the one index that begins with the watcher: `run` may be counted as empty and
 * be full, and by an index that begins with the org a look-up reads all live runs of the org.
 */
function hasActiveRun(orgId: string, watcherId: string) {
  return sql.raw(`exists (select from run r
        where r.watcher_id = ${watcherId} and r.org_id || '' = ${orgId} and r.spread_to is null offset 0)`);
}

/**
 * Locks up to `limit` watchers with a due slot, the longest due first, and up to `newest` of the
 * latest due; skips watchers locked by other transactions.
 */
export async function lockDue(tx: Db, limit: number, newest = 0): Promise<DueWatcher[]> {
  const due = (order: "asc" | "desc", count: number) => sql`
    select w.org_id as "orgId", w.id as "watcherId"
    from schedule_position s join watcher w on w.org_id = s.org_id and w.id = s.watcher_id
    -- Not the transaction's time: the slot may have fallen due since it began.
    where s.next_due_at <= statement_timestamp()
    order by s.next_due_at ${sql.raw(order)}
    limit ${count}
    for no key update of w skip locked`;
  const query =
    newest === 0
      ? sql<WatcherName>`${ofFew} ${due("asc", limit)}`
      : sql<WatcherName>`
          with oldest as materialized (${due("asc", limit)}), newest as materialized (${due("desc", newest)})
          select * from oldest union select * from newest`;
  const { rows } = await query.execute(tx);
  return readLocked(tx, rows);
}

/** Locks up to `limit` watchers with a backlog and no active run. */
export async function lockBacklogged(tx: Db, limit: number): Promise<DueWatcher[]> {
  const { rows } = await sql<WatcherName>`
    select w.org_id as "orgId", w.id as "watcherId" from watcher w
    where (w.org_id, w.id) in (select org_id, watcher_id from backlog)
      and not ${hasActiveRun("w.org_id", "w.id")}
    limit ${limit}
    for no key update of w skip locked
  `.execute(tx);
  return (await readLocked(tx, rows)).filter((watcher) => !watcher.hasActiveRun);
}

/** Locks a watcher, and waits for the current holder of the lock. */
export function lockOne(tx: Db, watcher: WatcherName): Promise<DueWatcher | undefined> {
  return lockNamed(tx, watcher, sql``);
}

/**
 * Like {@link lockOne}, with the prompt that the input of a run must suit, and with the value of
 * `beside`, which is read with it.
 */
export function lockToStart(
  tx: Db,
  watcher: WatcherName,
  beside: RawBuilder<unknown> = sql`null`,
): Promise<DueWatcher | undefined> {
  return lockNamed(
    tx,
    watcher,
    sql`(select v.prompt from watcher_revision v
        where v.org_id = w.org_id and v.watcher_id = w.id and v.version = w.version) as prompt,
      ${beside} as beside,`,
  );
}

async function lockNamed(
  tx: Db,
  watcher: WatcherName,
  moreColumns: RawBuilder<unknown>,
): Promise<DueWatcher | undefined> {
  await sql`${inCompany}${ofFew}
    select from watcher where org_id = ${watcher.orgId} and id = ${watcher.watcherId} for no key update`.execute(
    tx,
  );
  return (await readLocked(tx, [watcher], moreColumns))[0];
}

/**
 * Reads the locked watchers in a separate statement: a single statement would see other tables as
 * of its own start, and miss a run written between the start and the lock.
 */
async function readLocked(
  tx: Db,
  watchers: readonly WatcherName[],
  moreColumns: RawBuilder<unknown> = sql``,
): Promise<DueWatcher[]> {
  if (watchers.length === 0) return [];
  const { rows } = await sql<DueWatcher>`${ofAnySize}
    select w.org_id as "orgId", w.id as "watcherId", case when w.placement is null then w.device_id end as "deviceId",
      w.placement is not null as "isGated", w.schedule, w.time_zone as "timeZone", w.overlap, w.catchup,
      w.catchup_window_ms as "catchupWindowMs", w.jitter_ms as "jitterMs", w.min_cooldown_ms as "minCooldownMs",
      w.status, s.next_slot_at as "nextSlotAt", s.next_due_at as "nextDueAt", s.last_slot_at as "lastSlotAt",
      s.last_run_at as "lastRunAt", w.window_cursor_at as "windowCursorAt", w.backoff_until as "backoffUntil",
      case when w.day_budget is not null then (
        select jsonb_build_object('tokensMax', coalesce(w.day_budget->>'tokensMax', '0')::int8,
          'costMicrosMax', coalesce(w.day_budget->>'costMicrosMax', '0')::int8,
          'tokens', coalesce(sum(u.input_tokens + u.output_tokens), 0), 'costMicros', coalesce(sum(u.cost_micros), 0))
        from usage_day u
        where u.org_id = w.org_id and u.watcher_id = w.id and u.day = (now() at time zone 'UTC')::date
      ) end as budget,
      a.version is not null as "hasAgent",
      ${moreColumns}
      ${offersByRevision} as offers,
      ${hasActiveRun("w.org_id", "w.id")} as "hasActiveRun",
      b.queued_slot_at as "queuedSlotAt", b.scheduled_for as "backlogSlotAt", b.source as "backlogSource", b.run_id as "backlogRunId", clock_timestamp() as now
    from ${namesInput(watchers)} join watcher w on w.org_id = i.org_id and w.id = i.id
      join schedule_position s on s.org_id = i.org_id and s.watcher_id = i.id
      left join agent a on a.org_id = w.org_id and a.id = w.agent_id
      left join agent_revision v on v.org_id = a.org_id and v.agent_id = a.id and v.version = a.version
      left join lateral (
        select scheduled_for, source, run_id, (select max(q.scheduled_for) from backlog q
          where q.org_id = w.org_id and q.watcher_id = w.id and q.source = 'scheduled') as queued_slot_at
        from backlog b where b.org_id = w.org_id and b.watcher_id = w.id
        order by scheduled_for limit 1
      ) b on true
    order by i.ord
  `.execute(tx);
  return rows;
}

const namesInput = (names: readonly WatcherName[]) =>
  unnest("i", names, {
    org_id: ["text", (w) => w.orgId],
    id: ["uuid", (w) => w.watcherId],
  });

/** A moment by the database's clock, in milliseconds since 1970, to the microsecond. */
const epochMs = (moment: string) => sql.raw(`(extract(epoch from ${moment}) * 1000)::float8`);

/** A range of due times: after `after` (milliseconds since 1970) and within `withinMs` from now. */
export type Reach = { after: number; withinMs: number; limit: number };

/** Whether a run is active still when the slot falls due is seen then. */
const isIdle = sql`not ${hasActiveRun("w.org_id", "w.id")}`;

/** Up to `limit` active watchers without an active run whose next slot falls due in the range. */
const ahead = ({ after, withinMs, limit }: Reach, condition = isIdle) => sql`
    select w.org_id as "orgId", w.id as "watcherId"
    from schedule_position s join watcher w on w.org_id = s.org_id and w.id = s.watcher_id
    where s.next_due_at > greatest(statement_timestamp(), to_timestamp(${after}::float8 / 1000))
      and s.next_due_at <= statement_timestamp() + ${withinMs}::float8 * interval '1 ms'
      and w.status = 'active' and ${condition}
    order by s.next_due_at
    limit ${limit}`;

/**
 * Locks watchers with a slot in the range, the soonest due first. Skips watchers locked by other
 * transactions.
 */
export async function lockAhead(tx: Db, reach: Reach): Promise<DueWatcher[]> {
  const { rows } =
    await sql<WatcherName>`${ofFew} ${ahead(reach)} for no key update of w skip locked`.execute(tx);
  return readLocked(tx, rows);
}

/**
 * The watchers with a slot in the range, without a lock, except the watchers whose device is
 * connected to another replica than `replicaId`: that replica claims their runs as it records them.
 * The replicas of a crowd look past each other's watchers, so they list many at once.
 */
export async function listAhead(db: Db, reach: Reach & { replicaId: string }): Promise<WatcherName[]> {
  const isElsewhere = sql`exists (
    select from presence p where p.org_id = w.org_id and p.device_id = w.device_id
      and p.replica_id <> ${reach.replicaId} and p.disconnected_at is null)`;
  // In this order: of most watchers it is known by their device alone that they are others'.
  const isOwn = sql`case when ${isElsewhere} then false else ${isIdle} end`;
  const { rows } = await sql<WatcherName>`${ofFew} ${ahead(reach, isOwn)}`.execute(db);
  return rows;
}

/** Locks watchers of {@link listAhead}, and skips watchers locked by other transactions. */
export async function lockListed(tx: Db, names: readonly WatcherName[]): Promise<DueWatcher[]> {
  if (names.length === 0) return [];
  const { rows } = await sql<WatcherName>`${ofAnySize}
    select w.org_id as "orgId", w.id as "watcherId" from ${namesInput(names)}
      join watcher w on w.org_id = i.org_id and w.id = i.id
    order by i.ord for no key update of w skip locked`.execute(tx);
  return readLocked(tx, rows);
}

/**
 * The coming due times for the materializer, by the database's clock, in milliseconds since 1970.
 */
export type Outlook = {
  nowMs: number;
  /** The due time of the next slot; it may be in the past. */
  dueMs: number | null;
  /** The due time of the next slot beyond the time up to which slots were recorded ahead. */
  beyondMs: number | null;
  /** Slots wait whose watcher has no active run. */
  hasBacklog: boolean;
  /** Other replicas live. */
  hasOthers: boolean;
};

/** Age in milliseconds at which a replica's beat is too old for a replica that lives. */
const replicaBeatMsMax = 30_000;

/**
 * Reads the coming due times; `through`: the time up to which slots were recorded ahead by the
 * replica `replicaId`.
 */
export async function lookAhead(db: Db, through: number, replicaId = ""): Promise<Outlook> {
  const { rows } = await sql<Outlook>`
    ${ofFew} select ${epochMs("clock_timestamp()")} as "nowMs",
      (select ${epochMs("next_due_at")} from schedule_position where next_due_at is not null order by next_due_at limit 1) as "dueMs",
      (select ${epochMs("next_due_at")} from schedule_position where next_due_at > to_timestamp(${through}::float8 / 1000)
        order by next_due_at limit 1) as "beyondMs",
      exists (select from backlog b where not ${hasActiveRun("b.org_id", "b.watcher_id")}) as "hasBacklog",
      exists (select from replica where id <> ${replicaId}
        and last_beat_at > now() - ${replicaBeatMsMax} * interval '1 ms') as "hasOthers"
  `.execute(db);
  return onlyRow(rows);
}

/** A due time in milliseconds since 1970, and the number of slots up to it. */
export type Crowd = { dueMs: number; slots: number };

/**
 * The due time of the `count`th slot after `through`, in milliseconds since 1970, and the number of
 * slots due up to this time; undefined with fewer slots.
 */
export async function findCrowd(db: Db, through: number, count: number): Promise<Crowd | undefined> {
  const after = sql`next_due_at > to_timestamp(${through}::float8 / 1000)`;
  const { rows } = await sql<Crowd>`
    ${ofFew} select ${epochMs("c.next_due_at")} as "dueMs",
      (select count(*) from schedule_position where ${after} and next_due_at <= c.next_due_at)::int as slots
    from (
      select next_due_at from schedule_position where ${after} order by next_due_at offset ${count - 1}::int limit 1
    ) c
  `.execute(db);
  return rows[0];
}

/**
 * Pauses a watcher whose slots cannot be recorded, and drops its waiting slots, so that the watcher
 * stops no pass (R9).
 */
export async function setAside(tx: Db, watcher: WatcherName & { reason: string }): Promise<void> {
  await sql`
    with dropped as (
      delete from backlog where org_id = ${watcher.orgId} and watcher_id = ${watcher.watcherId}
    ),
    stopped as (
      update schedule_position set next_slot_at = null, next_due_at = null
      where org_id = ${watcher.orgId} and watcher_id = ${watcher.watcherId}
    )
    update watcher set status = 'paused', paused_reason = ${watcher.reason}
    where org_id = ${watcher.orgId} and id = ${watcher.watcherId}
  `.execute(tx);
}
