import { refuse } from "../../errors.ts";
import { cronSlots } from "./cron-slots.ts";
import { hashOf, parseCron } from "./cron-text.ts";
import { isMoment, momentOf } from "./local-time.ts";
import { Mistake } from "./mistake.ts";
import type { Slots } from "./slots.ts";
import { explainZone, isZone } from "./zones.ts";

/**
 * Schedules: cron expressions, `@every 90m` with an anchor, and `@at 2026-12-01T09:00` for a single
 * slot. The slots of a span are a function of the schedule, its zone and the span and, with hashed
 * fields, of the watcher. Preview, planning, catch-up and backfill use the same function. All
 * results of the folder are in UTC.
 */
export type Schedule = {
  schedule: string;
  timeZone: string;
  /** The input of hashed fields (H); undefined: a fixed default. */
  watcherId?: string;
};

/** Compiled schedules kept: they repeat a lot between watchers (`0 9 * * *`). */
const compiledMax = 10_000;
/** Maximum cached slots: watchers with equal schedules ask for the same slot. */
const answersMax = 50_000;

/** Longest time between two slots of `@every`. */
const everyMsMax = 366 * 86_400_000;

type Compiled = {
  slots: Slots;
  kind: "cron" | "every" | "at";
  hasSeconds: boolean;
  isHashed: boolean;
  /** For `@every`. */
  everyMs?: number;
};

const compiled = new Map<string, Compiled>();
const answers = new Map<string, number | undefined>();

function compile({ schedule, timeZone, watcherId = "" }: Schedule): Compiled {
  const key = `${timeZone} ${schedule}`;
  const known = compiled.get(key) ?? compiled.get(`${key} ${watcherId}`);
  if (known) return known;
  const made = read(schedule.trim(), timeZone, watcherId);
  if (compiled.size >= compiledMax) compiled.clear();
  compiled.set(made.isHashed ? `${key} ${watcherId}` : key, made);
  return made;
}

function read(text: string, zone: string, watcherId: string): Compiled {
  const [, at] = /^@at\b\s*(.*)$/is.exec(text) ?? [];
  if (at !== undefined) return { ...plain, kind: "at", slots: atSlots(at, zone) };
  const [, every] = /^@every\b\s*(.*)$/is.exec(text) ?? [];
  if (every !== undefined) return readEvery(every, zone);
  const hint = hintOf(text);
  if (hint) throw new Mistake(hint);
  const cron = parseCron(text, watcherId);
  const { hasSeconds, isHashed } = cron;
  return { kind: "cron", hasSeconds, isHashed, slots: cronSlots(cron, zone) };
}

const plain = { hasSeconds: false, isHashed: false };

/** The probable meaning of a text that is no cron expression. */
function hintOf(text: string): string | undefined {
  if (isMoment(text)) return `it is a moment; to fire once, write at = "${text}" ("@at ${text}")`;
  const length = /^(?:every\s+)?((?:\d+(?:\.\d+)?[a-z]+)+)$/i.exec(text)?.[1];
  if (length)
    return `it is a length of time; to fire that often, write every = "${length}" ("@every ${length}")`;
  return undefined;
}

function atSlots(text: string, zone: string): Slots {
  const moment = momentOf(text, zone);
  return {
    next: (after) => (moment > after ? moment : undefined),
    previous: (before) => (moment < before ? moment : undefined),
  };
}

function readEvery(text: string, zone: string): Compiled {
  const [length = "", anchorText, ...rest] = text.split(/\s+from\s+|\s+/i).filter((part) => part !== "");
  if (rest.length > 0)
    throw new Mistake('@every takes a length and an anchor: "@every 90m from 2026-12-01T09:00"');
  const everyMs = parseEvery(length);
  // Without an anchor: whole multiples since 1970, so that an hour is the full hour, whenever the
  // schedule was written.
  const anchor = anchorText === undefined ? 0 : momentOf(anchorText, zone);
  const slots: Slots = {
    next: (after) => anchor + (Math.floor((after - anchor) / everyMs) + 1) * everyMs,
    previous: (before) => anchor + (Math.ceil((before - anchor) / everyMs) - 1) * everyMs,
  };
  return { ...plain, kind: "every", slots, everyMs };
}

const unitsMs: Record<string, number> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 };

function parseEvery(text: string): number {
  const parts = [...text.matchAll(/(\d+)([smhdw])/gi)];
  if (text === "" || parts.map(([part]) => part).join("") !== text) {
    throw new Mistake(
      text === ""
        ? '@every has no length; write one such as "@every 90m"'
        : `the length "${text}" is not understood; write it like 30s, 90m, 1h30m or 2d`,
    );
  }
  const ms = parts.reduce(
    (sum, [, number, unit = ""]) => sum + Number(number) * (unitsMs[unit.toLowerCase()] ?? 0),
    0,
  );
  if (ms < 1_000) throw new Mistake("the time between two slots must be at least 1 s");
  if (ms > everyMsMax) throw new Mistake("the time between two slots must be at most 366 days");
  return ms;
}

/** Rules for a schedule beyond its syntax. */
export type ScheduleRules = {
  /** The shortest time between two slots, in milliseconds. Undefined: not checked. */
  intervalMsMin?: number;
  /** A schedule must have a slot after this time. Undefined: not checked for `@at`. */
  now?: Date;
};

/**
 * Refuses (`invalid_argument`, fields `spec.schedule` and `spec.time_zone`) an invalid schedule, an
 * invalid zone, a schedule that never fires, and a schedule against the rules.
 */
export function checkSchedule(schedule: Schedule, rules: ScheduleRules = {}): void {
  if (!isZone(schedule.timeZone)) {
    refuse("invalid_argument", explainZone(schedule.timeZone), { field: "spec.time_zone" });
  }
  let made: Compiled;
  try {
    made = compile(schedule);
  } catch (error) {
    if (!(error instanceof Mistake)) throw error;
    const isCron = !/^\s*@(at|every)\b/i.test(schedule.schedule);
    refuseSchedule(schedule, `${isCron ? " is not a cron expression" : ""}: ${error.message}`);
  }
  const next = made.slots.next(rules.now?.getTime() ?? Date.now());
  if (made.kind === "at") {
    if (rules.now && next === undefined) refuseSchedule(schedule, " never fires: it is in the past");
    return;
  }
  if (next === undefined) refuseSchedule(schedule, " never fires: there is no such date");
  const { intervalMsMin = 0 } = rules;
  const shortestMs = shortestInterval(schedule, made, intervalMsMin);
  if (shortestMs < intervalMsMin) {
    refuseSchedule(
      schedule,
      `: it has slots ${shortestMs / 1_000} s apart, and the shortest time between two is ${intervalMsMin / 1_000} s here (PINION_INTERVAL_MIN)`,
    );
  }
}

function refuseSchedule({ schedule }: Schedule, why: string): never {
  refuse("invalid_argument", `schedule "${schedule}"${why}`, { field: "spec.schedule" });
}

/**
 * Maximum slots checked. With six per minute, the most under the usual limit, the check covers more
 * than two hours.
 */
const looksMax = 1_000;

/**
 * The shortest time between two slots by the clock, in milliseconds; exact only below `boundMs`.
 */
function shortestInterval(schedule: Schedule, made: Compiled, boundMs: number): number {
  if (made.everyMs !== undefined) return made.everyMs;
  if (boundMs <= (made.hasSeconds ? 1_000 : 60_000)) return boundMs;
  // A clock change may bring two slots closer together; the limit does not apply to such slots.
  const { slots } = compile({ ...schedule, timeZone: "UTC" });
  let shortest = Number.POSITIVE_INFINITY;
  let last = slots.next(0);
  for (let look = 0; look < looksMax && last !== undefined && shortest >= boundMs; look++) {
    const next = slots.next(last);
    if (next === undefined) break;
    shortest = Math.min(shortest, next - last);
    last = next;
  }
  return shortest;
}

/**
 * The first slot strictly after a moment, or undefined if there is none. The schedule must have
 * passed checkSchedule.
 */
export function nextSlot(schedule: Schedule, after: Date): Date | undefined {
  return answer("after", schedule, after, (slots, moment) => slots.next(moment));
}

/** The last slot strictly before a moment, or undefined if there is none. */
export function previousSlot(schedule: Schedule, before: Date): Date | undefined {
  return answer("before", schedule, before, (slots, moment) => slots.previous(moment));
}

/**
 * The years before have no slots. A protobuf timestamp begins with the year 1, and JavaScript reads
 * the years before 100 as those of the 20th century.
 */
const earliestMs = Date.UTC(1000, 0, 1);

/** The cached or computed answer. */
function answer(
  direction: string,
  schedule: Schedule,
  at: Date,
  find: (slots: Slots, moment: number) => number | undefined,
): Date | undefined {
  const { slots, isHashed } = compile(schedule);
  const moment = Math.max(at.getTime(), earliestMs);
  const key = `${direction} ${moment} ${schedule.timeZone} ${schedule.schedule}${isHashed ? ` ${schedule.watcherId}` : ""}`;
  let slot = answers.get(key);
  if (slot === undefined && !answers.has(key)) {
    slot = find(slots, moment);
    if (answers.size >= answersMax) answers.clear();
    answers.set(key, slot);
  }
  return slot === undefined ? undefined : new Date(slot);
}

/**
 * The watcher's fixed offset in milliseconds, from 0 up to and including `jitterMs`: a hash of the
 * watcher's id, so the same on every replica and in every year.
 */
export function jitterOf(watcherId: string, jitterMs: number): number {
  return jitterMs <= 0 ? 0 : hashOf(watcherId) % (jitterMs + 1);
}
