import { Cron } from "croner";
import { refuse } from "../errors.ts";

/**
 * Cron expressions, through croner 11.
 *
 * Daylight saving: a time that falls into the gap fires at the end of the gap (`30 2 * * *` at 03:00 on that day); a
 * repeated time fires once, the first time. test/unit/scheduler/cron.test.ts holds golden dates of several zones.
 * What leaves this file is UTC.
 */

/** Compiled expressions kept: schedules repeat a lot between watchers (`0 9 * * *`). */
const compiledMax = 10_000;
/** Answers kept: the watchers of one herd ask for the same slot. */
const answersMax = 50_000;

const compiled = new Map<string, Cron>();
const answers = new Map<string, Date | undefined>();

/** A zone as the time zone database of this Node spells it. */
function isZone(zone: string): boolean {
  try {
    new Intl.DateTimeFormat("en", { timeZone: zone });
    // Offsets such as "+02:00" are accepted by Intl but know no daylight saving; "Europe/Berlin" is what is meant.
    return /^[A-Za-z]/.test(zone);
  } catch {
    return false;
  }
}

function compile(schedule: string, zone: string): Cron {
  const key = `${zone} ${schedule}`;
  const known = compiled.get(key);
  if (known) return known;
  const cron = new Cron(schedule, { timezone: zone, paused: true, mode: "5-or-6-parts" });
  if (compiled.size >= compiledMax) compiled.clear();
  compiled.set(key, cron);
  return cron;
}

/**
 * Refuses (`invalid_argument`, fields `spec.schedule` and `spec.time_zone`) what is no cron expression, no zone, or
 * never fires.
 */
export function checkSchedule(schedule: string, zone: string): void {
  if (!isZone(zone)) {
    refuse(
      "invalid_argument",
      `time zone "${zone}" does not exist; use an IANA name such as "Europe/Berlin"`,
      {
        field: "spec.time_zone",
      },
    );
  }
  let cron: Cron;
  try {
    cron = compile(schedule, zone);
  } catch (error) {
    const why = error instanceof Error ? error.message.replace(/^CronPattern: /, "") : String(error);
    refuse("invalid_argument", `schedule "${schedule}" is not a cron expression: ${why}`, {
      field: "spec.schedule",
    });
  }
  if (!cron.nextRun()) {
    refuse("invalid_argument", `schedule "${schedule}" never fires`, { field: "spec.schedule" });
  }
}

/** The first slot strictly after a moment, or undefined if there is none. The schedule must have passed checkSchedule. */
export function nextSlot(schedule: string, zone: string, after: Date): Date | undefined {
  return answer(`${after.getTime()} ${zone} ${schedule}`, () => compile(schedule, zone).nextRun(after));
}

/** The last slot strictly before a moment, or undefined if there is none. Much slower than {@link nextSlot}. */
export function previousSlot(schedule: string, zone: string, before: Date): Date | undefined {
  return answer(
    `before ${before.getTime()} ${zone} ${schedule}`,
    () => compile(schedule, zone).previousRuns(1, before)[0],
  );
}

/** The answer that was given before, or the one that is found now. */
function answer(key: string, find: () => Date | null | undefined): Date | undefined {
  if (answers.has(key)) return answers.get(key);
  const slot = find() ?? undefined;
  if (answers.size >= answersMax) answers.clear();
  answers.set(key, slot);
  return slot;
}

/**
 * The watcher's fixed offset in milliseconds, from 0 up to and including `jitterMs`: FNV-1a over its id, so that it is
 * the same on every replica and in every year.
 */
export function jitterOf(watcherId: string, jitterMs: number): number {
  if (jitterMs <= 0) return 0;
  let hash = 0x811c9dc5;
  for (let i = 0; i < watcherId.length; i++) {
    hash ^= watcherId.charCodeAt(i);
    hash = Math.imul(hash, 0x01000193);
  }
  return (hash >>> 0) % (jitterMs + 1);
}
