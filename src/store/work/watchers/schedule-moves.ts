import { sql } from "kysely";
import { unnest } from "../../pg/unnest.ts";

/** Moves of schedules, as parts of the statement that records their slots (slot-rows.ts). */

export type ScheduleMove = {
  orgId: string;
  watcherId: string;
  nextSlotAt: Date | null;
  nextDueAt: Date | null;
  /** The start of the materialized run, from which min_cooldown counts; null for none. */
  lastRunAt: Date | null;
};

/** What a move needs to know of a slot that is recorded with it. */
type MovedSlot = {
  orgId: string;
  watcherId: string;
  scheduledFor: Date | null;
  skipReason: string | null;
};

type Moved = ScheduleMove & { lastSlotAt: Date | null; isRun: boolean; unrunnable: number };

const inputColumns = {
  org_id: ["text", (m: ScheduleMove) => m.orgId],
  watcher_id: ["uuid", (m: ScheduleMove) => m.watcherId],
  next_slot_at: ["timestamptz", (m: ScheduleMove) => m.nextSlotAt],
  next_due_at: ["timestamptz", (m: ScheduleMove) => m.nextDueAt],
  last_run_at: ["timestamptz", (m: ScheduleMove) => m.lastRunAt],
} as const;

const moved = sql`next_slot_at = m.next_slot_at, next_due_at = m.next_due_at,
        last_run_at = coalesce(m.last_run_at, s.last_run_at), last_slot_at = greatest(s.last_slot_at, m.last_slot_at),
        unrunnable_slots = case when m.is_run then 0 else s.unrunnable_slots + m.unrunnable end`;

/** The moves, if all of the slots become rows. */
export function moveWith(moves: readonly ScheduleMove[], slots: readonly MovedSlot[]) {
  const input = unnest("m", merge(moves, slots), {
    ...inputColumns,
    last_slot_at: ["timestamptz", (m) => m.lastSlotAt],
    is_run: ["boolean", (m) => m.isRun],
    unrunnable: ["int", (m) => m.unrunnable],
  });
  return sql`
      update schedule_position s set ${moved} from ${input}
      where s.org_id = m.org_id and s.watcher_id = m.watcher_id`;
}

/** One move for each watcher, with the facts of its slots. */
function merge(moves: readonly ScheduleMove[], slots: readonly MovedSlot[]): Moved[] {
  const byWatcher = new Map<string, Moved>();
  for (const move of moves) {
    const known = byWatcher.get(nameOf(move));
    if (!known) {
      byWatcher.set(nameOf(move), { ...move, lastSlotAt: null, isRun: false, unrunnable: 0 });
      continue;
    }
    known.nextSlotAt = later(known.nextSlotAt, move.nextSlotAt);
    known.nextDueAt = later(known.nextDueAt, move.nextDueAt);
    known.lastRunAt = later(known.lastRunAt, move.lastRunAt);
  }
  for (const slot of slots) {
    const move = byWatcher.get(nameOf(slot));
    if (!move) continue;
    move.lastSlotAt = later(move.lastSlotAt, slot.scheduledFor);
    if (slot.skipReason === null) move.isRun = true;
    if (slot.skipReason === "no_executor") move.unrunnable++;
  }
  return [...byWatcher.values()];
}

const nameOf = ({ orgId, watcherId }: { orgId: string; watcherId: string }) => `${orgId} ${watcherId}`;

function later(one: Date | null, other: Date | null): Date | null {
  if (one === null || other === null) return one ?? other;
  return one > other ? one : other;
}

/** The moves, with the slots that become rows as the statement finds them in `wanted`. */
export function moveWithWanted(moves: readonly ScheduleMove[]) {
  const input = unnest("m", moves, inputColumns);
  return sql`
      update schedule_position s set ${moved}
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
