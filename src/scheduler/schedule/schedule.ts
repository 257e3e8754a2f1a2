import { refuse } from "../../errors.ts";
import { type CronText, cronOf, hashOf, parseCron } from "./cron-text.ts";
import { isMoment, momentOf, type Span, spanAt } from "./local-time.ts";
import { Mistake } from "./mistake.ts";
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
/** The last moment of a protobuf timestamp. */
const latestMs = Date.UTC(10_000, 0, 1) - 1;

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
    if (slot !== undefined && slot > latestMs) slot = undefined;
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

/**
 * The slots of a cron expression in a zone. croner computes clock readings alone; the effect of a
 * clock change is decided here, by one rule.
 *
 * - An hour field of every hour follows elapsed time: its slots are all times at which the clock
 *   shows a time of the expression. A gap adds and moves nothing, a repeated hour has its slots
 *   again.
 * - Other hour fields name their hours, by a list, a range or a step. Times within a gap fire
 *   together, once, at the end of the gap.
 * - If the clock shows a named hour twice, a time of the hour fires once, the first time; but a
 *   minute field with a wildcard or a step follows elapsed time through the repeated hour.
 *
 * test/property/schedule-slots.test.ts compares with another implementation of the rule, which
 * checks every second.
 */
function cronSlots(cron: CronText, zone: string): Slots {
  const readings = readingsOf(cron.expression);
  const movesGaps = !cron.isEveryHour;
  const repeats = cron.isEveryHour || cron.isMinuteOpen;

  /** The first reading of the span that is not a repeated reading. */
  const firstReading = (span: Span) => {
    const start = span.start + span.offset;
    const { lastChange } = span;
    return repeats || !lastChange ? start : Math.max(start, lastChange.at + lastChange.before);
  };
  /** A time of the expression falls into the gap at the start of the span. */
  const firesAtStart = ({ change, start, offset }: Span) => {
    if (!movesGaps || !change || change.before >= change.after) return false;
    const inGap = readings.after(start + change.before - second);
    return inGap !== undefined && inGap < start + offset;
  };

  return {
    next(after) {
      const since = Math.floor(after / second) * second;
      let span = spanAt(zone, since);
      for (;;) {
        if (span.start > since && firesAtStart(span)) return span.start;
        const from = Math.max(since + span.offset, firstReading(span) - second);
        const reading = readings.after(from);
        if (reading === undefined) return undefined;
        if (reading < span.end + span.offset) return reading - span.offset;
        span = spanAt(zone, span.end);
      }
    },
    previous(before) {
      const until = Math.ceil(before / second) * second;
      let span = spanAt(zone, until - second);
      for (;;) {
        const reading = readings.before(Math.min(until, span.end) + span.offset);
        if (reading === undefined) return undefined;
        if (reading >= firstReading(span)) return reading - span.offset;
        if (firesAtStart(span)) return span.start;
        span = spanAt(zone, span.start - second);
      }
    },
  };
}

const second = 1_000;

/**
 * Clock readings of an expression, as if they were UTC. The last question's answer is kept:
 * neighbouring spans ask alike.
 */
function readingsOf(expression: string) {
  const cron = cronOf(expression);
  let asked = Number.POSITIVE_INFINITY;
  let found: number | undefined;
  return {
    after(moment: number): number | undefined {
      if (asked <= moment && (found === undefined || found > moment)) return found;
      found = cron.nextRun(new Date(moment))?.getTime();
      asked = moment;
      return found;
    },
    before(moment: number): number | undefined {
      return cron.previousRuns(1, new Date(moment))[0]?.getTime();
    },
  };
}

/** A schedule's slots, in both directions. All moments are in milliseconds. */
export interface Slots {
  /** The first slot strictly after a moment, or undefined if there is none. */
  next(after: number): number | undefined;
  /** The last slot strictly before a moment, or undefined if there is none. */
  previous(before: number): number | undefined;
}

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
