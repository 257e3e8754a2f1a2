import { type RawBuilder, sql } from "kysely";
import { isOfSlot, slotRunId } from "../../../values/ids.ts";
import type { Db } from "../../pg/database.ts";
import { answeredLate } from "../../pg/round-trips.ts";
import { ofAnySize, unnest } from "../../pg/values/unnest.ts";
import type { SkipReason } from "../attempts/settlements.ts";
import * as gates from "../runs/gates.ts";
import {
  type AssignmentFacts,
  assignmentColumns,
  assignmentJoins,
  type ClaimedRun,
} from "../runs/run-claims.ts";
import type { SessionName } from "../service/presence.ts";
import { moveAsTold, moveByWritten, type ScheduleMove, toldMoves } from "./schedule-moves.ts";
import type { StartSource } from "./schedules.ts";

/**
 * Slots: the rows written for them, and the slots that wait for the end of their watcher's active
 * run.
 */

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
  /** Of a run that waits for its start; null: none. */
  startDeadlineAt?: Date | null;
  /** Set if the run was claimed as it was recorded; the row then is a ClaimedRun as well. */
  attemptToken: string | null;
};

/** Whether the run was claimed as it was recorded. */
export function isClaimed(run: RecordedRun): run is RecordedRun & ClaimedRun {
  return run.attemptToken !== null;
}

/**
 * Whether a slot or a start of the input `i` has its row: a run under the slot's own id
 * (`slot_id`; of a start its run's), live or ended, or under another id, recorded in `slot`. The
 * answer holds while the watcher's row is locked.
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
  const { rows } = await statementOf(slots, moves).execute(tx);
  return rows.map((written) => recordedOf(slots[written.ord - 1] as SlotRecord, written));
}

/**
 * Like {@link record}, for new slots, of which each gets its row: sent with the next statement, the
 * commit at the latest. The returned function tells the rows after the commit.
 */
export async function recordLate(
  tx: Db,
  slots: readonly SlotRecord[],
  moves: readonly ScheduleMove[],
): Promise<() => RecordedRun[]> {
  const { rows } = await statementOf(slots, moves, answeredLate).execute(tx);
  return () => rows.map((written) => recordedOf(slots[written.ord - 1] as SlotRecord, written));
}

function statementOf(
  slots: readonly SlotRecord[],
  moves: readonly ScheduleMove[],
  mark = sql``,
): RawBuilder<Written> {
  const areNew = slots.every((slot) => slot.isNew);
  // All new slots are written, so what they say of their schedules is known before.
  const told = areNew ? toldMoves(moves, slots) : undefined;
  const moved = told ? moveAsTold(told) : moveByWritten(moves);
  return sql<Written>`${mark}${ofAnySize}
    with input as materialized (select * from ${inputOf(slots, areNew)}),
    wanted as materialized (${wanted} ${areNew ? sql`` : sql`where i.is_new or not ${isThere}`}),
    ${notingStrangers(slots)}
    live as (${insertLive}),
    ${slots.some((slot) => slot.isGated) ? gates.insertOfWanted : sql``}
    ${slots.some((slot) => slot.skipReason) ? sql`skipped as (${insertSkipped}),` : sql``}
    consumed as (
      delete from backlog b using input i
      where b.org_id = i.org_id and b.watcher_id = i.watcher_id and b.scheduled_for = coalesce(i.scheduled_for, i.waits_since)
    ),
    moved as (${moved})
    ${slots.some((slot) => slot.claimant) ? writtenAndClaimed : writtenOnly}
  `;
}

/**
 * The facts of a written row that its slot does not have. `ord`: the slot's place, from 1. The
 * device of a claimed run is its claimant's.
 */
type Written = { ord: number } & (
  | { attemptToken: null; deviceId: string | null; isHeld: boolean; startDeadlineAt: Date | null }
  | ({ attemptToken: string } & AssignmentFacts)
);

function recordedOf(slot: SlotRecord, written: Written): RecordedRun {
  if (written.attemptToken !== null) return claimedOf(slot, written);
  const { orgId, runId, watcherId, skipReason, reason, scheduledFor, dueAt } = slot;
  const { deviceId, isHeld, startDeadlineAt, attemptToken } = written;
  const status = skipReason === null ? "pending" : "skipped";
  return {
    ...{ orgId, runId, watcherId, deviceId, isHeld, status, skipReason, reason, scheduledFor, dueAt },
    ...{ startDeadlineAt, attemptToken },
  };
}

/** One object without copies: nearly every run is one. */
function claimedOf(
  slot: SlotRecord,
  facts: { attemptToken: string } & AssignmentFacts,
): RecordedRun & ClaimedRun {
  return {
    orgId: slot.orgId,
    runId: slot.runId,
    watcherId: slot.watcherId,
    deviceId: (slot.claimant as SessionName).deviceId,
    attemptToken: facts.attemptToken,
    attempt: 1,
    isHeld: false,
    status: "pending",
    skipReason: null,
    reason: slot.reason,
    source: slot.source,
    dueAt: slot.dueAt,
    dueForMs: 0,
    scheduledFor: slot.scheduledFor,
    windowStart: slot.windowStart,
    windowEnd: slot.windowEnd,
    agentKind: facts.agentKind,
    notification: facts.notification,
    timeoutMs: facts.timeoutMs,
    input: facts.input,
    watcherVersion: facts.watcherVersion,
    watcherSlug: facts.watcherSlug,
    watcherName: facts.watcherName,
    prompt: facts.prompt,
    extractionSchema: facts.extractionSchema,
    agentWork: facts.agentWork,
    agentSession: facts.agentSession,
    agentId: facts.agentId,
    agentVersion: facts.agentVersion,
    agentName: facts.agentName,
    agentSettings: facts.agentSettings,
    priorWindow: facts.priorWindow,
  };
}

function inputOf(slots: readonly SlotRecord[], areNew: boolean) {
  return unnest("i", slots, {
    org_id: ["text", (s) => s.orgId],
    watcher_id: ["uuid", (s) => s.watcherId],
    run_id: ["uuid", (s) => s.runId],
    scheduled_for: ["timestamptz", (s) => s.scheduledFor],
    waits_since: ["timestamptz", (s) => s.waitsSince ?? null],
    ...(areNew
      ? {}
      : { slot_id: ["uuid", ownIdOf] as const, is_new: ["boolean", (s: SlotRecord) => s.isNew] as const }),
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
}

/** The id that a slot's run has by its slot; a start's run has its own. */
const ownIdOf = (slot: SlotRecord) =>
  slot.scheduledFor ? slotRunId({ ...slot, scheduledFor: slot.scheduledFor }) : slot.runId;

/** The rows to write, with the facts of their watchers. */
const wanted = sql`
      select i.*, w.version, w.agent_id, coalesce(a.version, 0) as agent_version, w.device_id, w.agent_kind,
        w.notification, w.timeout_ms, w.max_attempts, w.slug, w.last_window_id, w.last_window_at,
        w.placement, w.placement is not null as is_gated,
        case when s.session_id is not null and i.skip_reason is null and w.placement is null then gen_random_uuid() end as attempt_token,
        -- A slot that is recorded late still has its whole deadline.
        greatest(i.due_at, now()) + w.start_deadline_ms * interval '1 ms' as start_deadline_at
      from input i
        join watcher w on w.org_id = i.org_id and w.id = i.watcher_id
        left join agent a on a.org_id = w.org_id and a.id = w.agent_id
        -- As runClaims.claim does: a newer hello waits for our commit, or the runs are left to it. Looked up for each row:
        -- the planner takes the input for ten rows, and would read all seats for every row of a join.
        left join lateral (
          select session_id from presence
          where org_id = w.org_id and device_id = w.device_id and epoch = i.epoch and session_id = i.session_id
            and disconnected_at is null
          for key share skip locked
        ) s on i.session_id is not null`;

/** The slots of runs whose ids are not derived from them. */
function notingStrangers(slots: readonly SlotRecord[]) {
  const strangers = slots.filter((slot) => slot.scheduledFor && !isOfSlot(slot.runId, slot.scheduledFor));
  if (strangers.length === 0) return sql``;
  return sql`noted as (
      insert into slot (org_id, watcher_id, scheduled_for, run_id)
      select org_id, watcher_id, scheduled_for, run_id from wanted where run_id = any(${strangers.map((s) => s.runId)}::uuid[])
    ),`;
}

const insertLive = sql`
      insert into run (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
        notification, source, scheduled_for, window_start, window_end, due_at, start_deadline_at, timeout_ms, max_attempts,
        retry_of, is_pinned, is_gated, is_held, status, attempt, attempt_token, claimed_at, claimed_epoch, claimed_session)
      select org_id, run_id, watcher_id, version, agent_id, agent_version, device_id, agent_kind, notification, source,
        scheduled_for, window_start, window_end, due_at, start_deadline_at, timeout_ms, max_attempts, retry_of,
        device_id is not null, is_gated, is_gated, case when attempt_token is null then 'pending' else 'claimed' end,
        case when attempt_token is null then 0 else 1 end, attempt_token,
        case when attempt_token is not null then now() end, case when attempt_token is not null then epoch end,
        case when attempt_token is not null then session_id end
      from wanted where skip_reason is null`;

const insertSkipped = sql`
      insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
        notification, source, scheduled_for, window_start, window_end, due_at, created_at, start_deadline_at, timeout_ms,
        max_attempts, retry_of, status, attempt, reason, past_attempts, skip_reason)
      select org_id, run_id, watcher_id, version, agent_id, agent_version, device_id, agent_kind, notification, source,
        scheduled_for, window_start, window_end, due_at, now(), start_deadline_at, timeout_ms, max_attempts, retry_of,
        'skipped', 0, reason, '[]', skip_reason
      from wanted where skip_reason is not null`;

/** The columns of a {@link Written} row. */
const writtenColumns = sql`c.ord, c.attempt_token as "attemptToken",
      case when c.attempt_token is null then c.device_id end as "deviceId",
      case when c.attempt_token is null and c.skip_reason is null then c.start_deadline_at end as "startDeadlineAt",
      c.is_gated and c.skip_reason is null as "isHeld"`;

const writtenOnly = sql`select ${writtenColumns} from wanted c`;

/** The columns of {@link AssignmentFacts} as well. */
const writtenAndClaimed = sql`select ${writtenColumns}, c.agent_kind as "agentKind", c.notification,
      c.timeout_ms as "timeoutMs", c.version as "watcherVersion", c.slug as "watcherSlug", ${assignmentColumns}
    from wanted c ${assignmentJoins({ runId: sql`c.run_id`, version: sql`c.version`, windowId: sql`c.last_window_id`, windowAt: sql`c.last_window_at` })}`;

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
    slot_id: ["uuid", (s) => slotRunId(s)],
  });
  const result = await sql`
    insert into backlog (org_id, watcher_id, scheduled_for, source)
    select org_id, watcher_id, scheduled_for, source from ${input}
    where not ${isThere}
    on conflict do nothing
  `.execute(tx);
  return Number(result.numAffectedRows ?? 0);
}
