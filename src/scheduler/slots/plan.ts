import type { SkipReason } from "../../store/work/attempts/settlements.ts";
import { lackOf } from "../../store/work/watchers/device-offers.ts";
import type { ScheduleMove } from "../../store/work/watchers/schedule-moves.ts";
import type { DueWatcher, StartSource } from "../../store/work/watchers/schedules.ts";
import type { SlotRecord } from "../../store/work/watchers/slot-rows.ts";
import { newId, slotRunId } from "../../values/ids.ts";
import { jitterOf, nextSlot, previousSlot } from "../schedule/schedule.ts";

/**
 * The rows for the due slots of a watcher, as a pure value; slotRows.record writes them.
 *
 * R2: every due slot is in `slots` (as a run or as skipped) or, once, in `aside`. R3: `move` is
 * written with them.
 */
export type Plan = {
  slots: SlotRecord[];
  /** A slot of a queue_one watcher that waits for the end of the active run. */
  aside: { orgId: string; watcherId: string; scheduledFor: Date; source: "scheduled" }[];
  move: ScheduleMove;
  /** The slot is not due yet, and could also be decided when due. */
  isAhead?: boolean;
};

/** Maximum slots of a watcher per pass; further slots are due at once in the next pass. */
export const slotsPerPassMax = 500;

/**
 * Milliseconds of lateness that still count as on time for a watcher without catch-up: passes take
 * a moment.
 */
const onTimeMs = 60_000;

/** Milliseconds of the window of a run without an earlier stored result. */
const firstWindowMs = 86_400_000;

/**
 * Plans up to `slotsMax` due slots of a watcher whose row is locked, at `watcher.now`. Further
 * slots stay due.
 */
export function planDue(watcher: DueWatcher, slotsMax = slotsPerPassMax): Plan {
  const offsetMs = jitterOf(watcher.watcherId, watcher.jitterMs);
  const { orgId, watcherId } = watcher;
  const { due, next } = dueSlots(watcher, offsetMs, slotsMax);
  const nextDueAt = next && new Date(next.getTime() + offsetMs);
  const plan: Plan = {
    slots: [],
    aside: [],
    move: { orgId, watcherId, nextSlotAt: next, nextDueAt, lastRunAt: null },
  };
  // The list has the slot before each slot; only the slot before the first is computed.
  const before = new Map(due.map((slot, index) => [slot, due[index - 1]]));
  const recordOf = (slot: Date) => slotRecord(watcher, slot, "scheduled", before.get(slot));
  const skip = (slot: Date, skipReason: SkipReason, reason: string) => {
    plan.slots.push({ ...recordOf(slot), skipReason, reason });
  };

  if (watcher.status === "paused") {
    // The watcher was paused by its failures while the slots were due already.
    for (const slot of due) skip(slot, "cooldown", "the watcher was paused");
    plan.move.nextSlotAt = null;
    plan.move.nextDueAt = null;
    return plan;
  }
  const reason = whyNoExecutor(watcher);
  if (reason !== undefined) {
    for (const slot of due) skip(slot, "no_executor", reason);
    return plan;
  }

  const hasMore = nextDueAt !== null && nextDueAt <= watcher.now;
  const latest = hasMore ? undefined : due.pop();
  for (const slot of due) skip(slot, "missed", "a later slot stands in for it");
  if (!latest) return plan;

  const dueAt = new Date(latest.getTime() + offsetMs);
  const why = whySkipped(watcher, dueAt);
  if (why) {
    skip(latest, why.skipReason, why.reason);
    return plan;
  }
  if (watcher.queuedSlotAt) {
    skip(watcher.queuedSlotAt, "overlap", "a later slot took its place in the queue");
  }
  if (watcher.hasActiveRun) {
    plan.aside.push({ orgId, watcherId, scheduledFor: latest, source: "scheduled" });
    return plan;
  }
  plan.slots.push({ ...recordOf(latest), dueAt });
  // A run on time counts from its slot: otherwise a cooldown equal to the schedule's interval would
  // skip every second slot.
  plan.move.lastRunAt = lateMsOf(watcher, dueAt) <= onTimeMs ? dueAt : watcher.now;
  return plan;
}

/** The slots that are due, at most `slotsMax`, and the slot after them. */
function dueSlots(
  { schedule, timeZone, watcherId, nextSlotAt, now }: DueWatcher,
  offsetMs: number,
  slotsMax: number,
): { due: Date[]; next: Date | null } {
  const due: Date[] = [];
  if (schedule === null) return { due, next: null };
  let next = nextSlotAt;
  while (next && next.getTime() + offsetMs <= now.getTime() && due.length < slotsMax) {
    due.push(next);
    next = nextSlot({ schedule, timeZone, watcherId }, next) ?? null;
  }
  return { due, next };
}

const lateMsOf = ({ now }: DueWatcher, dueAt: Date): number => now.getTime() - dueAt.getTime();

/** Why the latest due slot does not run; undefined if the slot runs, or is queued. */
function whySkipped(
  watcher: DueWatcher,
  dueAt: Date,
): { skipReason: SkipReason; reason: string } | undefined {
  const lateMs = lateMsOf(watcher, dueAt);
  const lateMsMax = watcher.catchup === "miss" ? onTimeMs : Math.max(watcher.catchupWindowMs, onTimeMs);
  if (lateMs > lateMsMax) {
    const reason = `nobody was there to fire it: ${Math.round(lateMs / 1000)} s late`;
    return { skipReason: "missed", reason };
  }
  if (watcher.hasActiveRun && watcher.overlap === "skip") {
    return { skipReason: "overlap", reason: "another run of the watcher was active" };
  }
  const cooldown = coolingDown(watcher, dueAt);
  if (cooldown) return { skipReason: "cooldown", reason: cooldown };
  const spent = spentBudget(watcher);
  return spent ? { skipReason: "budget", reason: spent } : undefined;
}

/**
 * Plans the next slot of a watcher ahead of its due time, up to `untilAt`, if no later change could
 * decide the slot differently. Undefined for a slot that is due already, would be skipped, or
 * depends on the end of an active run; such a slot is decided when due, by {@link planDue}.
 */
export function planAhead(watcher: DueWatcher, untilAt: Date): Plan | undefined {
  const { schedule, timeZone, nextSlotAt, orgId, watcherId } = watcher;
  if (schedule === null || nextSlotAt === null || watcher.status !== "active") return undefined;
  if (whyNoExecutor(watcher) !== undefined) return undefined;
  if (watcher.hasActiveRun || watcher.backlogSlotAt) return undefined;
  const offsetMs = jitterOf(watcherId, watcher.jitterMs);
  const dueAt = new Date(nextSlotAt.getTime() + offsetMs);
  if (dueAt <= watcher.now || dueAt > untilAt || coolingDown(watcher, dueAt)) return undefined;
  const next = nextSlot({ schedule, timeZone, watcherId }, nextSlotAt) ?? null;
  return {
    slots: [{ ...slotRecord(watcher, nextSlotAt, "scheduled"), dueAt }],
    aside: [],
    move: {
      ...{ orgId, watcherId, nextSlotAt: next, nextDueAt: next && new Date(next.getTime() + offsetMs) },
      lastRunAt: dueAt,
    },
    isAhead: true,
  };
}

/**
 * The reason, for people, why no device can run a slot of the watcher; undefined if some device
 * can.
 */
function whyNoExecutor(watcher: DueWatcher): string | undefined {
  if (!watcher.hasAgent) return "the watcher's agent does not exist";
  if (watcher.status === "no_executor") return "the watcher's device was deleted";
  return lackOf(watcher.offers);
}

/**
 * Plans the oldest slot, or start, that waited for the end of the active run. The schedule does not
 * move.
 */
export function planBacklog(watcher: DueWatcher): Plan {
  const plan: Plan = { slots: [], aside: [], move: stay(watcher) };
  const slot = watcher.backlogSlotAt;
  const source = watcher.backlogSource;
  if (!slot || !source || watcher.hasActiveRun) return plan;
  if (source !== "scheduled" && source !== "backfill") {
    return planStart(watcher, { source, runId: watcher.backlogRunId!, waitsSince: slot });
  }
  const record = slotRecord(watcher, slot, source);
  if (source === "backfill") record.dueAt = watcher.now;
  const skip = whyNotNow(watcher, { isAutomatic: source === "scheduled" });
  if (skip) {
    plan.slots.push({ ...record, ...skip });
    return plan;
  }
  plan.slots.push(record);
  plan.move.lastRunAt = watcher.now;
  return plan;
}

/**
 * Plans a start (a trigger, a delivery to a hook, the end of another run) of a watcher without an
 * active run: a run, or a skipped run with its reason. Automatic starts obey pauses and cooldowns;
 * a person's trigger does not.
 */
export function planStart(
  watcher: DueWatcher,
  start: { source: StartSource; runId: string; waitsSince?: Date; askedBy?: string },
): Plan {
  // A start that waited may have come back from its device, after a failover, just before it
  // waited.
  const slot = { ...manualRecord(watcher), ...start, isNew: start.waitsSince === undefined };
  const skip = whyNotNow(watcher, { isAutomatic: start.source !== "manual" });
  return skip
    ? { slots: [{ ...slot, ...skip }], aside: [], move: stay(watcher) }
    : { slots: [slot], aside: [], move: { ...stay(watcher), lastRunAt: watcher.now } };
}

/** Why a run that could begin now is skipped; pauses and cooldowns apply to automatic runs only. */
function whyNotNow(
  watcher: DueWatcher,
  { isAutomatic }: { isAutomatic: boolean },
): { skipReason: SkipReason; reason: string } | undefined {
  const reason = whyNoExecutor(watcher);
  if (reason !== undefined) return { skipReason: "no_executor", reason };
  if (isAutomatic) {
    if (watcher.status === "paused") return { skipReason: "cooldown", reason: "the watcher was paused" };
    const cooldown = coolingDown(watcher, watcher.now);
    if (cooldown) return { skipReason: "cooldown", reason: cooldown };
  }
  const spent = spentBudget(watcher);
  return spent ? { skipReason: "budget", reason: spent } : undefined;
}

/** Plans a start that was skipped while a run of the watcher was active. */
export function planSkipped(
  watcher: DueWatcher,
  start: { source: StartSource; runId: string; waitsSince?: Date; skipReason: SkipReason; reason: string },
): Plan {
  return { slots: [{ ...manualRecord(watcher), ...start }], aside: [], move: stay(watcher) };
}

/** A run requested by a person. Moves no schedule (R3). */
export function planManual(watcher: DueWatcher, options: ManualOptions = {}): Plan {
  return {
    slots: [manualRecord(watcher, options)],
    aside: [],
    move: { ...stay(watcher), lastRunAt: watcher.now },
  };
}

type ManualOptions = {
  retryOf?: { runId: string; windowStart: Date; windowEnd: Date };
  /** The id of the run; undefined: a new one. */
  runId?: string | undefined;
  askedBy?: string;
};

/** A run without a slot: due now, for the time since the last stored window. */
function manualRecord(watcher: DueWatcher, { retryOf, runId, askedBy }: ManualOptions = {}): SlotRecord {
  const { now, windowCursorAt } = watcher;
  const windowStart =
    windowCursorAt && windowCursorAt < now ? windowCursorAt : new Date(now.getTime() - firstWindowMs);
  return {
    ...unskipped(watcher),
    runId: runId ?? newId(now.getTime()),
    isNew: true,
    scheduledFor: null,
    source: "manual",
    dueAt: now,
    windowStart: retryOf?.windowStart ?? windowStart,
    windowEnd: retryOf?.windowEnd ?? now,
    retryOf: retryOf?.runId ?? null,
    askedBy,
  };
}

function stay(watcher: DueWatcher): ScheduleMove {
  const { orgId, watcherId, nextSlotAt, nextDueAt } = watcher;
  return { orgId, watcherId, nextSlotAt, nextDueAt, lastRunAt: null };
}

/** Why a run may not start yet, if so. */
function coolingDown(watcher: DueWatcher, at: Date): string | undefined {
  if (watcher.backoffUntil && watcher.backoffUntil > at) {
    return `backed off after failures until ${watcher.backoffUntil.toISOString()}`;
  }
  if (watcher.lastRunAt && watcher.minCooldownMs > 0) {
    const until = new Date(watcher.lastRunAt.getTime() + watcher.minCooldownMs);
    if (until > at) return `cooling down after the last run until ${until.toISOString()}`;
  }
  return undefined;
}

/** The message of a used-up day budget; undefined while some is left, or without a budget. */
export function spentBudget({ budget }: DueWatcher): string | undefined {
  if (!budget) return undefined;
  const { tokens, tokensMax, costMicros, costMicrosMax } = budget;
  if (tokensMax > 0 && tokens >= tokensMax) {
    return `the budget of the day is used up: ${tokens} of ${tokensMax} tokens`;
  }
  if (costMicrosMax > 0 && costMicros >= costMicrosMax) {
    const dollars = (micros: number) => (micros / 1e6).toFixed(2);
    return `the budget of the day is used up: ${dollars(costMicros)} of ${dollars(costMicrosMax)} USD`;
  }
  return undefined;
}

/**
 * The slot's run. Its window reaches from the last stored result, or from the previous slot, to the
 * slot. `before`: the previous slot, if known.
 */
function slotRecord(
  watcher: DueWatcher,
  slot: Date,
  source: "scheduled" | "backfill",
  before?: Date,
): SlotRecord {
  const { schedule, timeZone, watcherId } = watcher;
  const cursor = source === "scheduled" ? watcher.windowCursorAt : null;
  const windowStart =
    cursor && cursor < slot
      ? cursor
      : (before ??
        (schedule === null ? undefined : previousSlot({ schedule, timeZone, watcherId }, slot)) ??
        new Date(slot.getTime() - firstWindowMs));
  return {
    ...unskipped(watcher),
    runId: runIdOf(watcher, slot),
    // A schedule only moves forward, so no row exists beyond its last recorded slot. Slots of
    // edited, moved-back or backfilled schedules are looked up.
    isNew: source === "scheduled" && (watcher.lastSlotAt === null || slot > watcher.lastSlotAt),
    scheduledFor: slot,
    source,
    dueAt: new Date(slot.getTime() + jitterOf(watcher.watcherId, watcher.jitterMs)),
    windowStart,
    windowEnd: slot,
  };
}

/** The fields that every new record of a run of the watcher has. */
const unskipped = ({ orgId, watcherId, isGated }: DueWatcher) => ({
  ...{ orgId, watcherId, isGated },
  ...{ skipReason: null, reason: "", retryOf: null },
});

/**
 * Milliseconds. Devices keep results for some days at most; an old slot that is backfilled again,
 * after its row was deleted by age, gets a new run id.
 */
const sameRunMs = 7 * 86_400_000;

function runIdOf(watcher: DueWatcher, scheduledFor: Date): string {
  if (watcher.now.getTime() - scheduledFor.getTime() > sameRunMs) return newId(watcher.now.getTime());
  return slotRunId({ orgId: watcher.orgId, watcherId: watcher.watcherId, scheduledFor });
}
