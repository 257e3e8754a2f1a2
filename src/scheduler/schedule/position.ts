import { jitterOf, nextSlot } from "./schedule.ts";

/**
 * The position of a schedule: its next slot, and the slot's due time (the slot plus the jitter).
 */
export type Position = { nextSlotAt: Date; nextDueAt: Date };

/**
 * The position of a schedule after a time; undefined for a watcher without a schedule, and for a
 * schedule that has ended.
 */
export function positionAfter(
  of: { watcherId: string; schedule: string | null; timeZone: string; jitterMs: number },
  after: Date,
): Position | undefined {
  const { watcherId, schedule, timeZone, jitterMs } = of;
  if (schedule === null) return undefined;
  const nextSlotAt = nextSlot({ schedule, timeZone, watcherId }, after);
  if (!nextSlotAt) return undefined;
  return { nextSlotAt, nextDueAt: new Date(nextSlotAt.getTime() + jitterOf(watcherId, jitterMs)) };
}
