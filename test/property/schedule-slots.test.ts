/**
 * The slots of cron expressions over changes of the clocks, compared with a second implementation
 * of the rule: the local time of every minute of the days around a change is computed without code
 * of the product or its library.
 *
 * A seed repeats a run: SLOTS_SEED=7 npx vitest run test/property/schedule-slots.test.ts
 */
import { expect, test } from "vitest";
import { checkSchedule, nextSlot, previousSlot } from "../../src/scheduler/schedule/schedule.ts";
import { planDue } from "../../src/scheduler/slots/plan.ts";
import { dueWatcher } from "../support/due-watcher.ts";
import { isLong } from "../support/long.ts";
import { createRandom, type Random } from "../support/random.ts";

const zones = [
  "Africa/Cairo",
  "Africa/Casablanca",
  "America/Asuncion",
  "America/Havana",
  "America/New_York",
  "America/Nuuk",
  "America/Santiago",
  "America/Scoresbysund",
  "America/St_Johns",
  "Antarctica/Troll",
  "Asia/Amman",
  "Asia/Beirut",
  "Asia/Gaza",
  "Asia/Pyongyang",
  "Asia/Tehran",
  "Atlantic/Azores",
  "Australia/Adelaide",
  "Australia/Lord_Howe",
  "Europe/Berlin",
  "Europe/Chisinau",
  "Europe/London",
  "Pacific/Apia",
  "Pacific/Chatham",
];
/** Pyongyang moved by half an hour in 2015 and 2018, Tehran gave up its daylight saving in 2022. */
const years = { from: 2018, to: 2028 };
/** Outside of these years, the days skipped by Samoa and Tokelau. */
const skippedDays: [zone: string, year: number][] = [
  ["Pacific/Apia", 2011],
  ["Pacific/Fakaofo", 2011],
];

const seed = Number(process.env.SLOTS_SEED ?? Math.floor(Math.random() * 2 ** 31));
console.error(`the seed is ${seed}; SLOTS_SEED=${seed} brings this run back`);

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;
const aroundMs = 27 * 3_600_000;
const schedulesPerChange = isLong ? 200 : 2;

// Formatters of local times, by time zone.

const formats = new Map<string, Intl.DateTimeFormat>();

/** The local time of a zone, as if it were UTC. */
function readingOf(zone: string, moment: number): number {
  let format = formats.get(zone);
  if (!format) {
    format = new Intl.DateTimeFormat("sv-SE", { timeZone: zone, dateStyle: "short", timeStyle: "medium" });
    formats.set(zone, format);
  }
  return Date.parse(`${format.format(moment).replace(" ", "T")}Z`);
}

/** By how much more, or less, than `step` the local time advances in `step` milliseconds. */
const shiftOf = (zone: string, at: number, step: number) =>
  readingOf(zone, at + step) - readingOf(zone, at) - step;

/** The minutes at which the local time does not advance by a minute. */
function changesOf(zone: string, from: number, to: number): number[] {
  const changes: number[] = [];
  for (let at = from; at < to; at += dayMs) {
    if (shiftOf(zone, at, dayMs) === 0) continue;
    let moment = at;
    for (const step of [hourMs, minuteMs]) while (shiftOf(zone, moment, step) === 0) moment += step;
    changes.push(moment + minuteMs);
  }
  return changes;
}

/**
 * The local time of every minute of [from, to), which are whole hours apart. An hour in which the
 * local time advances by an hour is not asked for each of its minutes.
 */
function readingsOf(zone: string, from: number, to: number): number[] {
  const readings: number[] = [];
  for (let hour = from; hour < to; hour += hourMs) {
    const first = readingOf(zone, hour);
    const isPlain = shiftOf(zone, hour, hourMs) === 0;
    for (let at = 0; at < hourMs; at += minuteMs) {
      readings.push(isPlain ? first + at : readingOf(zone, hour + at));
    }
  }
  return readings;
}

// Schedules generated together with their meaning.

type Field = { text: string; values: Set<number>; isOpen: boolean };
type Made = {
  text: string;
  seconds: number[];
  minutes: Field;
  hours: Field;
  isDay: (year: number, month: number, day: number) => boolean;
};

/**
 * A field of a list, a range, a step, all or one value. `likely`: a value near the changes of the
 * clocks.
 */
function makeField(random: Random, min: number, max: number, likely: number): Field {
  const all = Array.from({ length: max - min + 1 }, (_, index) => min + index);
  const value = () => (random.chance(0.7) ? random.whole(min, likely) : random.whole(min, max));
  const of = (text: string, values: number[], isOpen = false): Field => ({
    text,
    values: new Set(values),
    isOpen: isOpen || values.length === all.length,
  });
  switch (random.whole(0, 7)) {
    case 0:
      return of("*", all);
    case 1: {
      const step = random.whole(1, Math.ceil((max - min) / 2));
      const values = all.filter((candidate) => (candidate - min) % step === 0);
      return of(`*/${step}`, values, true);
    }
    case 2: {
      const from = value();
      const step = random.whole(1, 20);
      const values = all.filter((candidate) => candidate >= from && (candidate - from) % step === 0);
      return of(`${from}/${step}`, values, true);
    }
    case 3: {
      const [from, to] = [value(), value()].sort((a, b) => a - b) as [number, number];
      return of(
        from === to ? `${from}` : `${from}-${to}`,
        all.filter((candidate) => candidate >= from && candidate <= to),
      );
    }
    case 4: {
      // Past the end: 22-2.
      const from = random.whole(max - 2, max);
      const to = random.whole(min, min + 3);
      return of(
        `${from}-${to}`,
        all.filter((candidate) => candidate >= from || candidate <= to),
      );
    }
    case 5: {
      const [from, to] = [value(), value()].sort((a, b) => a - b) as [number, number];
      const step = random.whole(1, 7);
      if (from === to) return of(`${from}`, [from]);
      const values = all.filter(
        (candidate) => candidate >= from && candidate <= to && (candidate - from) % step === 0,
      );
      return of(`${from}-${to}/${step}`, values, true);
    }
    case 6: {
      const values = [...new Set(Array.from({ length: random.whole(2, 5) }, value))];
      return of(values.join(","), values);
    }
    default: {
      const one = value();
      return of(`${one}`, [one]);
    }
  }
}

const dayNames = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const monthNames = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

const weekdayOf = (year: number, month: number, day: number) =>
  new Date(Date.UTC(year, month - 1, day)).getUTCDay();
const lengthOf = (year: number, month: number) => new Date(Date.UTC(year, month, 0)).getUTCDate();

/** The weekday nearest to a day within its month. */
function nearestWeekday(year: number, month: number, day: number): number | undefined {
  const length = lengthOf(year, month);
  if (day > length) return undefined;
  for (const distance of [0, -1, 1, -2, 2]) {
    const candidate = day + distance;
    if (candidate < 1 || candidate > length) continue;
    const weekday = weekdayOf(year, month, candidate);
    if (weekday !== 0 && weekday !== 6) return candidate;
  }
  return undefined;
}

type DayField = {
  text: string;
  matches: ((year: number, month: number, day: number) => boolean) | undefined;
};

function makeDays(random: Random, near: Date): DayField {
  const day = near.getUTCDate();
  switch (random.whole(0, 9)) {
    case 0:
      return { text: `${day}`, matches: (_y, _m, d) => d === day };
    case 1: {
      const from = Math.max(1, day - 1);
      const to = Math.min(31, day + 1);
      return { text: `${from}-${to}`, matches: (_y, _m, d) => d >= from && d <= to };
    }
    case 2:
      return { text: "*/2", matches: (_y, _m, d) => d % 2 === 1 };
    case 3:
      return { text: "L", matches: (y, m, d) => d === lengthOf(y, m) };
    case 4:
      return { text: `${day}W`, matches: (y, m, d) => d === nearestWeekday(y, m, day) };
    default:
      return { text: random.chance(0.5) ? "*" : "?", matches: undefined };
  }
}

function makeWeekdays(random: Random, near: Date): DayField {
  const weekday = near.getUTCDay();
  const name = random.pick([`${weekday}`, dayNames[weekday]!, dayNames[weekday]!.toLowerCase()]);
  switch (random.whole(0, 9)) {
    case 0:
      return { text: name, matches: (y, m, d) => weekdayOf(y, m, d) === weekday };
    case 1:
      return { text: "FRI-MON", matches: (y, m, d) => [5, 6, 0, 1].includes(weekdayOf(y, m, d)) };
    case 2: {
      const nth = Math.ceil(near.getUTCDate() / 7);
      return {
        text: `${name}#${nth}`,
        matches: (y, m, d) => weekdayOf(y, m, d) === weekday && Math.ceil(d / 7) === nth,
      };
    }
    case 3:
      return {
        text: `${weekday}L`,
        matches: (y, m, d) => weekdayOf(y, m, d) === weekday && d + 7 > lengthOf(y, m),
      };
    case 4:
      return { text: "5-7", matches: (y, m, d) => [5, 6, 0].includes(weekdayOf(y, m, d)) };
    default:
      return { text: "*", matches: undefined };
  }
}

/** An expression whose days are often near the change. */
function makeSchedule(random: Random, change: number): Made {
  const near = new Date(change + random.whole(-1, 1) * 86_400_000);
  const minutes = makeField(random, 0, 59, 59);
  const hours = makeField(random, 0, 23, 4);
  const days = makeDays(random, near);
  const weekdays = makeWeekdays(random, near);
  const month = random.chance(0.8) ? undefined : near.getUTCMonth() + 1;
  const monthText = month === undefined ? "*" : random.pick([`${month}`, monthNames[month - 1]!]);
  const hasSeconds = random.chance(0.15);
  const seconds = hasSeconds ? random.pick([[0], [7, 30], [59]]) : [0];
  const five = [minutes.text, hours.text, days.text, monthText, weekdays.text].join(" ");
  return {
    text: hasSeconds ? `${seconds.join(",")} ${five}` : five,
    seconds,
    minutes,
    hours,
    isDay: (y, m, d) => {
      if (month !== undefined && m !== month) return false;
      if (days.matches && weekdays.matches) return days.matches(y, m, d) || weekdays.matches(y, m, d);
      return (days.matches ?? weekdays.matches)?.(y, m, d) ?? true;
    },
  };
}

// The rule, read once more.

function matches(made: Made, reading: number): boolean {
  const at = new Date(reading);
  return (
    made.minutes.values.has(at.getUTCMinutes()) &&
    made.hours.values.has(at.getUTCHours()) &&
    made.isDay(at.getUTCFullYear(), at.getUTCMonth() + 1, at.getUTCDate())
  );
}

/** The slots of (from, to), by asking every minute. */
function slotsByHand(made: Made, readings: readonly number[], from: number): number[] {
  const isEveryHour = made.hours.values.size === 24;
  const seen = new Set<number>();
  const slots = new Set<number>();
  for (const [index, reading] of readings.entries()) {
    const moment = from + index * minuteMs;
    const before = readings[index - 1];
    if (before !== undefined && !isEveryHour) {
      for (let left = before + minuteMs; left < reading; left += minuteMs) {
        if (matches(made, left)) slots.add(moment);
      }
    }
    if (matches(made, reading) && (isEveryHour || made.minutes.isOpen || !seen.has(reading))) {
      for (const second of made.seconds) slots.add(moment + second * 1_000);
    }
    seen.add(reading);
  }
  return [...slots].sort((a, b) => a - b);
}

function forwards(schedule: { schedule: string; timeZone: string }, from: number, to: number): number[] {
  const slots: number[] = [];
  let slot = nextSlot(schedule, new Date(from - 1));
  while (slot && slot.getTime() < to) {
    slots.push(slot.getTime());
    slot = nextSlot(schedule, slot);
  }
  return slots;
}

function backwards(schedule: { schedule: string; timeZone: string }, from: number, to: number): number[] {
  const slots: number[] = [];
  let slot = previousSlot(schedule, new Date(to));
  while (slot && slot.getTime() >= from) {
    slots.unshift(slot.getTime());
    slot = previousSlot(schedule, slot);
  }
  return slots;
}

const told = (slots: readonly number[]) =>
  slots.map((slot) => new Date(slot).toISOString().slice(0, 19)).join(" ");

const spans = [
  ...zones.map((zone) => ({ zone, from: Date.UTC(years.from), to: Date.UTC(years.to) })),
  ...skippedDays.map(([zone, year]) => ({ zone, from: Date.UTC(year), to: Date.UTC(year + 1, 1) })),
].map(({ zone, from, to }, index): [string, number, number, number] => [zone, from, to, index]);

test.each(spans)(
  "%s: slots over every change of the clocks are those of the rule, in both directions",
  { timeout: 300_000 },
  (zone, start, end, index) => {
    const random = createRandom(seed + index);
    const changes = changesOf(zone, start, end);
    expect(changes.length).toBeGreaterThan(0);
    for (const change of changes) {
      const from = change - aroundMs;
      const to = change + aroundMs;
      // The readings begin earlier, so that a local time repeated within the span has been seen.
      const readings = readingsOf(zone, from, to);
      for (let i = 0; i < schedulesPerChange; i++) {
        const made = makeSchedule(random, change);
        const schedule = { schedule: made.text, timeZone: zone };
        const where = `seed ${seed}: "${made.text}" around ${new Date(change).toISOString()}`;
        const wanted = slotsByHand(made, readings, from);
        expect(told(forwards(schedule, from, to)), where).toBe(told(wanted));
        expect(told(backwards(schedule, from, to)), where).toBe(told(wanted));
        if (wanted.length === 0) continue;
        // Catching up records each of them, and nothing else.
        const plan = planDue(
          dueWatcher({ ...schedule, nextSlotAt: new Date(wanted[0]!), now: new Date(to - 1) }),
          wanted.length + 1,
        );
        const planned = plan.slots.map(({ scheduledFor }) => scheduledFor!.getTime());
        expect(told(planned), where).toBe(told(wanted));
      }
    }
  },
);

test("dates that never come are refused at once, and a schedule of seconds does not ask for a year of them", () => {
  const began = performance.now();
  for (const schedule of ["0 0 31 2 *", "0 0 31 4,6,9,11 *", "0 0 30 FEB ?", "* * * 30 2 *"]) {
    expect(() => checkSchedule({ schedule, timeZone: "America/New_York" })).toThrow(/never fires/);
  }
  for (const schedule of ["0 0 29 2 *", "59 59 23 31 12 *", "0 0 29 2 +1", "* * * 29 2 *"]) {
    expect(() =>
      checkSchedule({ schedule, timeZone: "America/New_York" }, { intervalMsMin: 1_000 }),
    ).not.toThrow();
  }
  const everySecond = { schedule: "* * * * * *", timeZone: "Europe/Berlin" };
  let slot = new Date("2026-03-28T00:00:00Z");
  for (let i = 0; i < 2_000; i++) slot = nextSlot(everySecond, slot)!;
  expect(slot.toISOString()).toBe("2026-03-28T00:33:20.000Z");
  // 60 ms on an idle machine; a search by the second for an impossible date would take hours.
  expect(performance.now() - began).toBeLessThan(5_000);
});
