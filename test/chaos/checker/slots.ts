import type { EverySeconds } from "../history.ts";
import { mayBeUndone } from "./losses.ts";
import { linesOf, type Violation, type World } from "./world.ts";

/** R2 and R3, from the schedules as the workload set them, without the product's own cron. */

/**
 * A schedule, with the moments between which the schedule took effect, and the moments between
 * which it ended.
 */
type Reign = {
  every: EverySeconds;
  jitterMs: number;
  setFrom: number;
  setBy: number;
  endedFrom: number;
  endedBy: number;
  /** Not undone by a failover. */
  isSure: boolean;
};

function reignsOf(world: World): Map<string, Reign[]> {
  const reigns = new Map<string, Reign[]>();
  for (const { request, sentAt, answeredAt, answer } of world.operations) {
    const isCreation = request.method === "createWatcher";
    if (!isCreation && request.method !== "setSchedule") continue;
    const watcher = isCreation ? answer?.watcher : request.watcher;
    if (watcher === undefined) continue;
    const list = reigns.get(watcher) ?? [];
    reigns.set(watcher, list);
    const setBy = answeredAt ?? Number.POSITIVE_INFINITY;
    const last = list.at(-1);
    if (last) Object.assign(last, { endedFrom: sentAt, endedBy: setBy });
    list.push({
      every: request.every,
      jitterMs: isCreation ? request.jitterMs : (last?.jitterMs ?? 0),
      setFrom: sentAt,
      setBy,
      endedFrom: Number.POSITIVE_INFINITY,
      endedBy: Number.POSITIVE_INFINITY,
      isSure: !mayBeUndone(world, sentAt, answeredAt),
    });
  }
  for (const list of reigns.values()) {
    // Until the next edit either schedule may be in force.
    for (let at = list.length - 1; at > 0; at--) {
      const reign = list[at]!;
      if (reign.isSure) continue;
      reign.setBy = Number.POSITIVE_INFINITY;
      list[at - 1]!.endedBy = reign.endedBy;
    }
  }
  return reigns;
}

/** The multiples of so many seconds after `after` and up to and including `to`. */
function slotsBetween(every: number, after: number, to: number): number[] {
  const step = every * 1000;
  const slots: number[] = [];
  for (let slot = (Math.floor(after / step) + 1) * step; slot <= to; slot += step) slots.push(slot);
  return slots;
}

/** The commit time of each slot's row, by "watcher slot". */
function recordedAt(world: World): Map<string, number> {
  const committedAt = new Map<string, number>();
  for (const { kind, run, committedAt: at } of world.rows.events) {
    if (run && (kind === "run.created" || kind === "run.skipped")) committedAt.set(run, at);
  }
  return new Map(
    world.rows.slots.flatMap(({ watcher, scheduledFor, run }) =>
      committedAt.has(run) ? [[`${watcher} ${scheduledFor}`, committedAt.get(run)!]] : [],
    ),
  );
}

/**
 * Every due slot of every schedule is recorded, and every recorded slot belongs to a schedule (R2).
 */
export function checkSlots(world: World): Violation | undefined {
  const recorded = new Map<string, Set<number>>();
  for (const { watcher, scheduledFor } of [...world.rows.slots, ...world.rows.backlog]) {
    const set = recorded.get(watcher) ?? new Set();
    recorded.set(watcher, set.add(scheduledFor));
  }
  const recordedBy = recordedAt(world);
  const backfills = world.operations.filter(({ request }) => request.method === "backfill");
  for (const [watcher, reigns] of reignsOf(world)) {
    const slots = recorded.get(watcher) ?? new Set();
    const isAllowed = (slot: number) =>
      reigns.some(
        ({ every, setFrom, endedBy }) =>
          every !== null &&
          slot % (every * 1000) === 0 &&
          slot >= setFrom &&
          // Recorded ahead while the schedule was in force; an edit keeps the slot.
          (slot <= endedBy || (recordedBy.get(`${watcher} ${slot}`) ?? Number.POSITIVE_INFINITY) <= endedBy),
      ) ||
      backfills.some(({ request }) =>
        request.method === "backfill" && request.watcher === watcher
          ? slot >= request.start &&
            slot < request.end &&
            reigns.some(({ every }) => every !== null && slot % (every * 1000) === 0)
          : false,
      );
    for (const slot of slots) {
      if (isAllowed(slot)) continue;
      const what = `watcher ${watcher} has a row for ${iso(slot)}, which is no slot of its schedule`;
      return { rule: "every slot once", what, lines: linesOf(world, { watcher }) };
    }
    for (const { every, jitterMs, setBy, endedFrom } of reigns) {
      if (every === null || setBy === Number.POSITIVE_INFINITY || endedFrom === Number.POSITIVE_INFINITY)
        continue;
      const missing = slotsBetween(every, setBy, endedFrom - jitterMs).find((slot) => !slots.has(slot));
      if (missing === undefined) continue;
      const what = `watcher ${watcher}, every ${every} s, has no row for ${iso(missing)}`;
      return { rule: "every slot once", what, lines: linesOf(world, { watcher }) };
    }
  }
  for (const { request, sentAt, answeredAt, answer } of backfills) {
    if (request.method !== "backfill" || !answer || mayBeUndone(world, sentAt, answeredAt)) continue;
    const every = reignsOf(world).get(request.watcher)?.[0]?.every;
    const slots = recorded.get(request.watcher) ?? new Set();
    if (every === null || every === undefined) continue;
    const missing = slotsBetween(every, request.start - 1, request.end - 1).find((slot) => !slots.has(slot));
    if (missing === undefined) continue;
    const what = `watcher ${request.watcher} was backfilled and has no row for ${iso(missing)}`;
    return { rule: "every slot once", what, lines: linesOf(world, { watcher: request.watcher }) };
  }
  return undefined;
}

/** A slot is one run or one skipped run with a reason, and the log records the skip once. */
export function checkSlotRows(world: World): Violation | undefined {
  const rule = "a slot is one row";
  const runOfSlot = new Map<string, string>();
  const told = new Map<string, number>();
  const cameBack = new Set<string>();
  for (const { kind, run } of world.losses.length > 0 ? world.rows.events : []) {
    if (run && kind.endsWith("_late")) cameBack.add(run);
  }
  for (const { kind, run } of world.rows.events) {
    if (run && (kind === "run.created" || kind === "run.skipped")) told.set(run, (told.get(run) ?? 0) + 1);
  }
  for (const { watcher, scheduledFor, run: id } of world.rows.slots) {
    const run = world.runs.get(id);
    const name = `${iso(scheduledFor)} of watcher ${watcher}`;
    if (!run || run.scheduledFor !== scheduledFor || run.watcher !== watcher) {
      return {
        rule,
        what: `the slot ${name} names run ${id}, which is not its`,
        lines: linesOf(world, { watcher }),
      };
    }
  }
  for (const run of world.rows.runs) {
    const name = `run ${run.id}`;
    const lines = () => linesOf(world, { run: run.id, watcher: run.watcher });
    if ((run.status === "skipped") !== (run.skipReason !== null)) {
      return { rule, what: `${name} is ${run.status} with the reason "${run.skipReason}"`, lines: lines() };
    }
    // A run whose start deadline passed appears in the log as created, and again as skipped.
    const times = told.get(run.id) ?? 0;
    // A failover may have lost its claim; its result came back after the deadline.
    const most = run.skipReason === "offline_expired" || cameBack.has(run.id) ? 2 : 1;
    // The log of a run that a failover lost begins with the result that came back.
    const least = cameBack.has(run.id) ? 0 : 1;
    if (times < least || times > most) {
      return { rule, what: `the log tells ${times} times that ${name} came to be`, lines: lines() };
    }
    if (run.scheduledFor === null) continue;
    const slot = `${run.watcher} ${run.scheduledFor}`;
    const other = runOfSlot.get(slot);
    if (other !== undefined) {
      const what = `${name} and run ${other} are both for ${iso(run.scheduledFor)} of watcher ${run.watcher}`;
      return { rule, what, lines: lines() };
    }
    runOfSlot.set(slot, run.id);
  }
  return undefined;
}

/**
 * At every moment a schedule stands at the first slot without a row, and all earlier slots have a
 * row (R3).
 */
export function checkScheduleMoves(world: World): Violation | undefined {
  const recordedBy = recordedAt(world);
  const steady = new Map([...reignsOf(world)].filter(([, reigns]) => reigns.length > 0));
  for (const entry of world.history) {
    // A slot that a failover lost is recorded again, at another time.
    if (entry.kind !== "schedules" || mayBeUndone(world, entry.at, entry.at)) continue;
    for (const { watcher, nextSlotAt, slots } of entry.watchers) {
      // Between the edits of a schedule only; around them, two schedules may be meant.
      const reign = steady
        .get(watcher)
        ?.find(({ setBy, endedFrom }) => setBy < entry.at && entry.at < endedFrom);
      if (!reign || reign.every === null) continue;
      // The previous schedule may have recorded slots ahead, which stay.
      const isOlder = (slot: number) =>
        (recordedBy.get(`${watcher} ${slot}`) ?? Number.POSITIVE_INFINITY) <= reign.setBy;
      const problem = whyAstray(
        { ...reign, every: reign.every, isOlder },
        { at: entry.at, nextSlotAt, slots },
      );
      if (!problem) continue;
      return {
        rule: "the schedule moves once per slot",
        what: `watcher ${watcher}, every ${reign.every} s, ${problem}`,
        lines: [entry, ...linesOf(world, { watcher })],
      };
    }
  }
  return undefined;
}

/** A look at the schedules goes back so far. */
export const lookBackMs = 60_000;

function whyAstray(
  reign: { every: number; setBy: number; isOlder: (slot: number) => boolean },
  look: { at: number; nextSlotAt: number | null; slots: number[] },
): string | undefined {
  const { nextSlotAt } = look;
  if (nextSlotAt === null) return "stands at no slot";
  if (nextSlotAt % (reign.every * 1000) !== 0) return `stands at ${iso(nextSlotAt)}, which is no slot of it`;
  const recorded = new Set(look.slots);
  if (recorded.size !== look.slots.length)
    return "has a slot that is recorded and waits, or is recorded twice";
  // An edit leaves the schedule at the requested slot; a slot that passed during the edit has its
  // row already.
  const late = look.slots.find((slot) => slot >= nextSlotAt && slot > reign.setBy && !reign.isOlder(slot));
  if (late !== undefined) return `stands at ${iso(nextSlotAt)} and has a row for ${iso(late)}`;
  const from = Math.max(reign.setBy, look.at - lookBackMs + reign.every * 1000);
  const missing = slotsBetween(reign.every, from, nextSlotAt - 1).find((slot) => !recorded.has(slot));
  return missing === undefined
    ? undefined
    : `stands at ${iso(nextSlotAt)} and has no row for ${iso(missing)}`;
}

export const iso = (moment: number): string => new Date(moment).toISOString();
