import { sql } from "kysely";
import { unnest } from "../../pg/values/unnest.ts";
import type { SkipReason } from "../attempts/settlements.ts";

/** The moves of schedules, as a part of the statement that writes their slots (slot-rows.ts). */

export type ScheduleMove = {
  orgId: string;
  watcherId: string;
  nextSlotAt: Date | null;
  nextDueAt: Date | null;
  /** The start of the materialized run, from which min_cooldown counts; null for none. */
  lastRunAt: Date | null;
};

/** What a slot says of its schedule. */
type MovingSlot = {
  orgId: string;
  watcherId: string;
  scheduledFor: Date | null;
  skipReason: SkipReason | null;
};

/** A move with the facts of its slots. */
type ToldMove = ScheduleMove & {
  /** The latest slot that is written; null for none. */
  lastSlotAt: Date | null;
  /** One of the slots becomes a run. */
  isRun: boolean;
  /** Number of slots without an executor. */
  unrunnable: number;
};

/**
 * The moves with the facts of their slots, if all slots will be written. Undefined unless the slots
 * follow the order of the moves, one move for each watcher, as a pass plans them.
 */
export function toldMoves(
  moves: readonly ScheduleMove[],
  slots: readonly MovingSlot[],
): ToldMove[] | undefined {
  const watcherIds = new Set<string>();
  let next = 0;
  const told = moves.map((move) => {
    watcherIds.add(move.watcherId);
    const begin = next;
    while (isOf(move, slots[next])) next++;
    return toldMove(move, slots.slice(begin, next));
  });
  return next === slots.length && watcherIds.size === moves.length ? told : undefined;
}

function isOf(move: ScheduleMove, slot: MovingSlot | undefined): boolean {
  return slot !== undefined && slot.watcherId === move.watcherId && slot.orgId === move.orgId;
}

function toldMove(move: ScheduleMove, slots: readonly MovingSlot[]): ToldMove {
  const { orgId, watcherId, nextSlotAt, nextDueAt, lastRunAt } = move;
  const told = { orgId, watcherId, nextSlotAt, nextDueAt, lastRunAt };
  let [lastSlotAt, isRun, unrunnable]: [Date | null, boolean, number] = [null, false, 0];
  for (const { scheduledFor, skipReason } of slots) {
    if (scheduledFor && (!lastSlotAt || scheduledFor > lastSlotAt)) lastSlotAt = scheduledFor;
    if (skipReason === null) isRun = true;
    if (skipReason === "no_executor") unrunnable++;
  }
  return { ...told, lastSlotAt, isRun, unrunnable };
}

const columns = {
  org_id: ["text", (m: ScheduleMove) => m.orgId],
  watcher_id: ["uuid", (m: ScheduleMove) => m.watcherId],
  next_slot_at: ["timestamptz", (m: ScheduleMove) => m.nextSlotAt],
  next_due_at: ["timestamptz", (m: ScheduleMove) => m.nextDueAt],
  last_run_at: ["timestamptz", (m: ScheduleMove) => m.lastRunAt],
} as const;

const update = sql`
      update schedule_position s set next_slot_at = m.next_slot_at, next_due_at = m.next_due_at,
        last_run_at = coalesce(m.last_run_at, s.last_run_at), last_slot_at = greatest(s.last_slot_at, m.last_slot_at),
        unrunnable_slots = case when m.is_run then 0 else s.unrunnable_slots + m.unrunnable end`;

/** Moves the schedules by one row for each. */
export function moveAsTold(moves: readonly ToldMove[]) {
  return sql`${update} from ${unnest("m", moves, {
    ...columns,
    last_slot_at: ["timestamptz", (m) => m.lastSlotAt],
    is_run: ["boolean", (m) => m.isRun],
    unrunnable: ["int", (m) => m.unrunnable],
  })}
      where s.org_id = m.org_id and s.watcher_id = m.watcher_id`;
}

/** Moves the schedules by the rows of `wanted`, the slots that turned out to have no row yet. */
export function moveByWritten(moves: readonly ScheduleMove[]) {
  const input = unnest("m", moves, columns);
  return sql`${update}
      from (
        -- Grouped, not joined: the planner takes "wanted" for three rows, and would join by a loop within a loop.
        select org_id, watcher_id, max(next_slot_at) as next_slot_at, max(next_due_at) as next_due_at,
          max(last_run_at) as last_run_at, max(last_slot_at) as last_slot_at, bool_or(is_run) as is_run, sum(unrunnable) as unrunnable
        from (
          select org_id, watcher_id, next_slot_at, next_due_at, last_run_at, null::timestamptz as last_slot_at, true as is_move, false as is_run, 0 as unrunnable
          from ${input}
          union all
          select org_id, watcher_id, null, null, null, scheduled_for, false, skip_reason is null, (skip_reason is not distinct from 'no_executor')::int
          from wanted
        ) each_of group by org_id, watcher_id having bool_or(is_move)
      ) m
      where s.org_id = m.org_id and s.watcher_id = m.watcher_id`;
}
