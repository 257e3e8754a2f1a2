import { sql } from "kysely";
import { isOfSlot, slotRunId } from "../../ids.ts";
import type { Db } from "../pg/database.ts";
import { ofAnySize, ofFew, unnest } from "../pg/unnest.ts";
import { assignmentColumns, assignmentJoins, type ClaimedRun } from "./attempts.ts";
import { type DeviceOffers, offersOfWatcher } from "./device-offers.ts";
import * as gates from "./gates.ts";
import type { SessionName } from "./presence.ts";
import type { SkipReason } from "./settlements.ts";

/**
 * Schedules: due slots, and the rows written for them.
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
export async function lockOne(tx: Db, watcher: WatcherName): Promise<DueWatcher | undefined> {
  await sql`select from watcher where org_id = ${watcher.orgId} and id = ${watcher.watcherId} for no key update`.execute(
    tx,
  );
  return (await readLocked(tx, [watcher]))[0];
}

/**
 * Reads the locked watchers in a separate statement: a single statement would see other tables as
 * of its own start, and miss a run written between the start and the lock.
 */
async function readLocked(tx: Db, watchers: readonly WatcherName[]): Promise<DueWatcher[]> {
  if (watchers.length === 0) return [];
  const input = unnest("i", watchers, {
    org_id: ["text", (w) => w.orgId],
    id: ["uuid", (w) => w.watcherId],
  });
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
      ${offersOfWatcher} as offers,
      ${hasActiveRun("w.org_id", "w.id")} as "hasActiveRun",
      b.queued_slot_at as "queuedSlotAt", b.scheduled_for as "backlogSlotAt", b.source as "backlogSource", b.run_id as "backlogRunId", clock_timestamp() as now
    from ${input} join watcher w on w.org_id = i.org_id and w.id = i.id
      join schedule_position s on s.org_id = i.org_id and s.watcher_id = i.id
      left join agent a on a.org_id = w.org_id and a.id = w.agent_id
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

/** A moment by the database's clock, in milliseconds since 1970, to the microsecond. */
const epochMs = (moment: string) => sql.raw(`(extract(epoch from ${moment}) * 1000)::float8`);

/**
 * Locks up to `limit` active watchers without an active run whose next slot falls due after `after`
 * (milliseconds since 1970) and within `withinMs` milliseconds from now; the soonest due first.
 * Skips watchers locked by other transactions. With a `replicaId`, it leaves out watchers whose
 * device is connected to another replica: that replica claims their runs as it records them.
 */
export async function lockAhead(
  tx: Db,
  options: { after: number; withinMs: number; limit: number; replicaId?: string | undefined },
): Promise<DueWatcher[]> {
  const isElsewhere = sql`exists (
    select from presence p where p.org_id = w.org_id and p.device_id = w.device_id
      and p.replica_id <> ${options.replicaId} and p.disconnected_at is null)`;
  const { rows } = await sql<WatcherName>`
    ${ofFew} select w.org_id as "orgId", w.id as "watcherId"
    from schedule_position s join watcher w on w.org_id = s.org_id and w.id = s.watcher_id
    where s.next_due_at > greatest(statement_timestamp(), to_timestamp(${options.after}::float8 / 1000))
      and s.next_due_at <= statement_timestamp() + ${options.withinMs}::float8 * interval '1 ms'
      and w.status = 'active'
      -- Whether it is active still when the slot falls due is seen then.
      and not ${hasActiveRun("w.org_id", "w.id")}
      ${options.replicaId === undefined ? sql`` : sql`and not ${isElsewhere}`}
    order by s.next_due_at
    limit ${options.limit}
    for no key update of w skip locked
  `.execute(tx);
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
  return rows[0]!;
}

/**
 * The due time of the `count`th slot after `through`, in milliseconds since 1970; undefined with
 * fewer slots.
 */
export async function findCrowd(db: Db, through: number, count: number): Promise<number | undefined> {
  const { rows } = await sql<{ dueMs: number }>`
    ${ofFew} select ${epochMs("next_due_at")} as "dueMs" from schedule_position where next_due_at > to_timestamp(${through}::float8 / 1000)
    order by next_due_at offset ${count - 1}::int limit 1
  `.execute(db);
  return rows[0]?.dueMs;
}

export type SlotRecord = {
  orgId: string;
  watcherId: string;
  runId: string;
  /** Null for a run without a slot. */
  scheduledFor: Date | null;
  source: "scheduled" | "backfill" | StartSource;
  /** For a start that waited: the beginning of its wait, which is its place in the queue. */
  waitsSince?: Date;
  /**
   * The slot lies beyond all slots of its watcher with a row, or the run has no slot; otherwise the
   * slot's row is looked up.
   */
  isNew: boolean;
  dueAt: Date;
  windowStart: Date;
  windowEnd: Date;
  /** Set: the slot becomes a `skipped` run. */
  skipReason: SkipReason | null;
  reason: string;
  retryOf: string | null;
  isGated: boolean;
  /** The actor of the trigger, for a placed run. */
  askedBy?: string | undefined;
  /**
   * The session of the replica that claims the run as it is recorded, if still its device's current
   * session.
   */
  claimant?: SessionName | undefined;
};

export type ScheduleMove = {
  orgId: string;
  watcherId: string;
  nextSlotAt: Date | null;
  nextDueAt: Date | null;
  /** The start of the materialized run, from which min_cooldown counts; null for none. */
  lastRunAt: Date | null;
};

export type RecordedRun = {
  orgId: string;
  runId: string;
  watcherId: string;
  /** The pin; null: any fleet worker of the org, or the device of a later placement. */
  deviceId: string | null;
  /** The run waits for placement. */
  isHeld: boolean;
  status: "pending" | "skipped";
  skipReason: SkipReason | null;
  reason: string;
  scheduledFor: Date | null;
  dueAt: Date;
  /** Set if the run was claimed as it was recorded; the row then is a ClaimedRun as well. */
  attemptToken: string | null;
};

/** Whether the run was claimed as it was recorded. */
export function isClaimed(run: RecordedRun): run is RecordedRun & ClaimedRun {
  return run.attemptToken !== null;
}

/** The run id of a slot; null for a run without a slot. */
const slotIdOf = (slot: { orgId: string; watcherId: string; scheduledFor: Date | null }) =>
  slot.scheduledFor && slotRunId({ ...slot, scheduledFor: slot.scheduledFor });

/**
 * Whether a slot of the input `i` has its row: a run under the slot's own id, live or ended, or
 * under another id, recorded in `slot`. The answer holds while the watcher's row is locked.
 */
const isThere = sql`(
  exists (select from run r where r.org_id = i.org_id and r.id = i.slot_id)
  or exists (select from run_finished f where f.org_id = i.org_id and f.id = i.slot_id)
  or exists (select from slot s
    where s.org_id = i.org_id and s.watcher_id = i.watcher_id and s.scheduled_for = i.scheduled_for))`;

/**
 * Writes the rows of slots, each once (R2: a slot with a row is left unchanged), and moves the
 * schedules of their watchers in the same statement (R3). The watchers' rows are locked by the
 * caller, and slots are distinct.
 *
 * A slot is identified by its run, whose id is derived from the slot; only a run with another id
 * leaves a row in `slot`.
 *
 * The run takes the pin, the agent kind, the notification and the versions from the watcher's
 * current row (R4).
 */
export async function record(
  tx: Db,
  slots: readonly SlotRecord[],
  moves: readonly ScheduleMove[],
): Promise<RecordedRun[]> {
  if (slots.length === 0 && moves.length === 0) return [];
  const areNew = slots.every((slot) => slot.isNew);
  const strangers = slots.filter((slot) => slot.scheduledFor && !isOfSlot(slot.runId, slot.scheduledFor));
  const slotInput = unnest("i", slots, {
    org_id: ["text", (s) => s.orgId],
    watcher_id: ["uuid", (s) => s.watcherId],
    run_id: ["uuid", (s) => s.runId],
    scheduled_for: ["timestamptz", (s) => s.scheduledFor],
    waits_since: ["timestamptz", (s) => s.waitsSince ?? null],
    ...(areNew
      ? {}
      : { slot_id: ["uuid", slotIdOf] as const, is_new: ["boolean", (s: SlotRecord) => s.isNew] as const }),
    source: ["text", (s) => s.source],
    due_at: ["timestamptz", (s) => s.dueAt],
    window_start: ["timestamptz", (s) => s.windowStart],
    window_end: ["timestamptz", (s) => s.windowEnd],
    skip_reason: ["text", (s) => s.skipReason],
    reason: ["text", (s) => s.reason],
    retry_of: ["uuid", (s) => s.retryOf],
    asked_by: ["text", (s) => s.askedBy ?? null],
    claimant_id: ["uuid", (s) => s.claimant?.deviceId ?? null],
    epoch: ["bigint", (s) => s.claimant?.epoch ?? null],
    session_id: ["uuid", (s) => s.claimant?.sessionId ?? null],
  });
  const moveInput = unnest("m", moves, {
    org_id: ["text", (m) => m.orgId],
    watcher_id: ["uuid", (m) => m.watcherId],
    next_slot_at: ["timestamptz", (m) => m.nextSlotAt],
    next_due_at: ["timestamptz", (m) => m.nextDueAt],
    last_run_at: ["timestamptz", (m) => m.lastRunAt],
  });
  const { rows } = await sql<RecordedRun>`${ofAnySize}
    with input as materialized (select * from ${slotInput}),
    wanted as materialized (
      select i.*, w.version, w.agent_id, coalesce(a.version, 0) as agent_version, w.device_id, w.agent_kind,
        w.notification, w.timeout_ms, w.max_attempts, w.slug, w.last_window_id, w.last_window_at,
        w.placement, w.placement is not null as is_gated,
        case when s.session_id is not null and i.skip_reason is null and w.placement is null then gen_random_uuid() end as attempt_token,
        -- A slot that is recorded late still has its whole deadline.
        greatest(i.due_at, now()) + w.start_deadline_ms * interval '1 ms' as start_deadline_at
      from input i
        join watcher w on w.org_id = i.org_id and w.id = i.watcher_id
        left join agent a on a.org_id = w.org_id and a.id = w.agent_id
        -- As attempts.claim does: a newer hello waits for our commit, or the runs are left to it. Looked up for each row:
        -- the planner takes the input for ten rows, and would read all seats for every row of a join.
        left join lateral (
          select session_id from presence
          where org_id = w.org_id and device_id = w.device_id and epoch = i.epoch and session_id = i.session_id
            and disconnected_at is null
          for key share skip locked
        ) s on i.session_id is not null
      ${areNew ? sql`` : sql`where i.is_new or i.scheduled_for is null or not ${isThere}`}
    ),
    ${
      strangers.length === 0
        ? sql``
        : sql`noted as (
      insert into slot (org_id, watcher_id, scheduled_for, run_id)
      select org_id, watcher_id, scheduled_for, run_id from wanted where run_id = any(${strangers.map((s) => s.runId)}::uuid[])
    ),`
    }
    live as (
      insert into run (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
        notification, source, scheduled_for, window_start, window_end, due_at, start_deadline_at, timeout_ms, max_attempts,
        retry_of, is_pinned, is_gated, is_held, status, attempt, attempt_token, claimed_at, claimed_epoch, claimed_session)
      select org_id, run_id, watcher_id, version, agent_id, agent_version, device_id, agent_kind, notification, source,
        scheduled_for, window_start, window_end, due_at, start_deadline_at, timeout_ms, max_attempts, retry_of,
        device_id is not null, is_gated, is_gated, case when attempt_token is null then 'pending' else 'claimed' end,
        case when attempt_token is null then 0 else 1 end, attempt_token,
        case when attempt_token is not null then now() end, case when attempt_token is not null then epoch end,
        case when attempt_token is not null then session_id end
      from wanted where skip_reason is null
    ),
    ${slots.some((slot) => slot.isGated) ? gates.insertOfWanted : sql``}
    skipped as (
      insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
        notification, source, scheduled_for, window_start, window_end, due_at, created_at, start_deadline_at, timeout_ms,
        max_attempts, retry_of, status, attempt, reason, past_attempts, skip_reason)
      select org_id, run_id, watcher_id, version, agent_id, agent_version, device_id, agent_kind, notification, source,
        scheduled_for, window_start, window_end, due_at, now(), start_deadline_at, timeout_ms, max_attempts, retry_of,
        'skipped', 0, reason, '[]', skip_reason
      from wanted where skip_reason is not null
    ),
    consumed as (
      delete from backlog b using input i
      where b.org_id = i.org_id and b.watcher_id = i.watcher_id and b.scheduled_for = coalesce(i.scheduled_for, i.waits_since)
    ),
    moved as (
      update schedule_position s set next_slot_at = m.next_slot_at, next_due_at = m.next_due_at,
        last_run_at = coalesce(m.last_run_at, s.last_run_at), last_slot_at = greatest(s.last_slot_at, m.last_slot_at),
        unrunnable_slots = case when m.is_run then 0 else s.unrunnable_slots + m.unrunnable end
      from (
        -- Grouped, not joined: the planner takes "wanted" for three rows, and would join by a loop within a loop.
        select org_id, watcher_id, max(next_slot_at) as next_slot_at, max(next_due_at) as next_due_at,
          max(last_run_at) as last_run_at, max(last_slot_at) as last_slot_at, bool_or(is_run) as is_run, sum(unrunnable) as unrunnable
        from (
          select org_id, watcher_id, next_slot_at, next_due_at, last_run_at, null::timestamptz as last_slot_at, true as is_move, false as is_run, 0 as unrunnable
          from ${moveInput}
          union all
          select org_id, watcher_id, null, null, null, scheduled_for, false, skip_reason is null, (skip_reason is not distinct from 'no_executor')::int
          from wanted
        ) each_of group by org_id, watcher_id having bool_or(is_move)
      ) m
      where s.org_id = m.org_id and s.watcher_id = m.watcher_id
    )
    select c.org_id as "orgId", c.run_id as "runId", c.watcher_id as "watcherId", c.device_id as "deviceId",
      c.is_gated and c.skip_reason is null as "isHeld",
      case when c.skip_reason is null then 'pending' else 'skipped' end as status, c.skip_reason as "skipReason", c.reason,
      c.scheduled_for as "scheduledFor", c.due_at as "dueAt", c.attempt_token as "attemptToken"${
        slots.some((slot) => slot.claimant)
          ? sql`, 1 as attempt, c.agent_kind as "agentKind", c.notification, c.timeout_ms as "timeoutMs", c.source,
      c.window_start as "windowStart", c.window_end as "windowEnd", c.version as "watcherVersion", c.slug as "watcherSlug",
      (extract(epoch from clock_timestamp() - c.due_at) * 1000)::float8 as "dueForMs", ${assignmentColumns}
    from wanted c ${assignmentJoins({ runId: sql`c.run_id`, version: sql`c.version`, windowId: sql`c.last_window_id`, windowAt: sql`c.last_window_at` })}`
          : sql`
    from wanted c`
      }
  `.execute(tx);
  return rows;
}

/**
 * Adds slots to the backlog until the watcher's active run ends. Slots with a row, or already
 * waiting, are left unchanged; returns the number of new slots. The watcher's row is locked by the
 * caller.
 */
export async function putAside(
  tx: Db,
  slots: readonly {
    orgId: string;
    watcherId: string;
    scheduledFor: Date;
    source: "scheduled" | "backfill";
  }[],
): Promise<number> {
  if (slots.length === 0) return 0;
  const input = unnest("i", slots, {
    org_id: ["text", (s) => s.orgId],
    watcher_id: ["uuid", (s) => s.watcherId],
    scheduled_for: ["timestamptz", (s) => s.scheduledFor],
    source: ["text", (s) => s.source],
    slot_id: ["uuid", slotIdOf],
  });
  const result = await sql`
    insert into backlog (org_id, watcher_id, scheduled_for, source)
    select org_id, watcher_id, scheduled_for, source from ${input}
    where not ${isThere}
    on conflict do nothing
  `.execute(tx);
  return Number(result.numAffectedRows ?? 0);
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

/** The facts for checking a schedule's position. */
export type PlannedWatcher = WatcherName & {
  schedule: string;
  timeZone: string;
  nextSlotAt: Date;
  /** The database's clock. */
  now: Date;
};

/**
 * Watchers whose next slot is more than `aheadMs` milliseconds away, by name, at most `limit`.
 * Locks nothing.
 */
export async function listPlanned(
  db: Db,
  options: { after?: WatcherName | undefined; aheadMs: number; limit: number },
): Promise<PlannedWatcher[]> {
  const { after } = options;
  const { rows } = await sql<PlannedWatcher>`
    select s.org_id as "orgId", s.watcher_id as "watcherId", w.schedule, w.time_zone as "timeZone",
      s.next_slot_at as "nextSlotAt", clock_timestamp() as now
    from schedule_position s join watcher w on w.org_id = s.org_id and w.id = s.watcher_id
    where s.next_slot_at > now() + ${options.aheadMs} * interval '1 ms' and w.schedule is not null
      ${after ? sql`and (s.org_id, s.watcher_id) > (${after.orgId}, ${after.watcherId}::uuid)` : sql``}
    order by s.org_id, s.watcher_id
    limit ${options.limit}
  `.execute(db);
  return rows;
}

/**
 * Moves a schedule back, and deletes the skipped rows of the slots in between, because the slots
 * are in the future again. Slots with a run, or waiting, stay recorded. Returns the number deleted.
 * The watcher's row is locked by the caller.
 */
export async function moveBack(
  tx: Db,
  move: WatcherName & { nextSlotAt: Date; nextDueAt: Date },
): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    with junk as (
      delete from run_finished
      where org_id = ${move.orgId} and watcher_id = ${move.watcherId} and scheduled_for >= ${move.nextSlotAt}
        and status = 'skipped' and id >= ${firstIdOf(move.nextSlotAt)}
      returning org_id, id
    ),
    freed as (
      delete from slot s using junk j
      where s.org_id = j.org_id and s.watcher_id = ${move.watcherId} and s.run_id = j.id
    ),
    dropped as (
      delete from backlog
      where org_id = ${move.orgId} and watcher_id = ${move.watcherId} and source = 'scheduled'
        and scheduled_for >= ${move.nextSlotAt}
    ),
    moved as (
      update schedule_position set next_slot_at = ${move.nextSlotAt}, next_due_at = ${move.nextDueAt}
      where org_id = ${move.orgId} and watcher_id = ${move.watcherId}
    )
    select count(*)::int as count from junk
  `.execute(tx);
  return rows[0]!.count;
}

/**
 * The lowest id of a run for a slot at or after the time: ids begin with the slot's time, or a
 * later time.
 */
function firstIdOf(slotAt: Date): string {
  const ms = Math.max(0, slotAt.getTime()).toString(16).padStart(12, "0");
  return `${ms.slice(0, 8)}-${ms.slice(8)}-0000-0000-000000000000`;
}

/**
 * Whether the caller is the replica that checks all schedules now; once in `everyMs` milliseconds,
 * over all replicas.
 */
export async function takeReplanning(db: Db, everyMs: number): Promise<boolean> {
  const result = await sql`
    update clock set replanned_at = now()
    where replanned_at is null or replanned_at > now() or replanned_at < now() - ${everyMs / 2} * interval '1 ms'
  `.execute(db);
  return Number(result.numAffectedRows ?? 0) > 0;
}
