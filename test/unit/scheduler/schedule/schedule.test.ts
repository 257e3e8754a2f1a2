import { expect, test } from "vitest";
import {
  checkSchedule,
  jitterOf,
  nextSlot,
  previousSlot,
} from "../../../../src/scheduler/schedule/schedule.ts";
import { newId } from "../../../../src/values/ids.ts";

/** The next `count` slots after a moment, as UTC. */
function slotsOf(schedule: string, zone: string, after: string, count: number): string[] {
  const slots: string[] = [];
  let slot = new Date(after);
  while (slots.length < count) {
    slot = nextSlot({ schedule, timeZone: zone }, slot)!;
    slots.push(slot.toISOString());
  }
  return slots;
}

/** Dates computed by hand from the zones' rules, not by the library. */
/** The slots of days with a change of the clocks, as people would expect them. */
const changes: [schedule: string, zone: string, after: string, slots: string[]][] = [
  ["15,45 2 * * *", "America/New_York", "2026-03-08T05:00Z", ["03-08 07:00", "03-09 06:15", "03-09 06:45"]],
  ["0 2,14 * * *", "America/New_York", "2026-03-08T05:00Z", ["03-08 07:00", "03-08 18:00"]],
  ["30 * * * *", "America/New_York", "2026-03-08T06:00Z", ["03-08 06:30", "03-08 07:30"]],
  ["0 1,13 * * *", "America/New_York", "2026-11-01T04:00Z", ["11-01 05:00", "11-01 18:00"]],
  ["0 */6 * * *", "Africa/Cairo", "2026-04-23T17:00Z", ["04-23 22:00", "04-24 03:00"]],
  ["0 */6 * * *", "Asia/Beirut", "2026-03-28T17:00Z", ["03-28 22:00", "03-29 03:00"]],
  ["0 1-3 * * *", "Australia/Lord_Howe", "2026-10-03T14:00Z", ["10-03 14:30", "10-03 15:30", "10-03 16:00"]],
  ["59 23 * * *", "America/Scoresbysund", "2026-03-28T02:00Z", ["03-29 01:00", "03-30 00:59"]],
  ["15,45 0-3 * * *", "Europe/London", "2026-10-25T00:00Z", ["10-25 00:15", "10-25 00:45", "10-25 02:15"]],
  ["*/30 * * * *", "Europe/London", "2026-10-25T00:10Z", ["10-25 00:30", "10-25 01:00", "10-25 01:30"]],
  [
    "*/30 1 * * *",
    "Europe/London",
    "2026-10-25T00:10Z",
    ["10-25 00:30", "10-25 01:00", "10-25 01:30", "10-26 01:00"],
  ],
  ["0 9 * * *", "Pacific/Apia", "2011-12-29T20:00Z", ["12-30 10:00", "12-30 19:00"]],
];

test.each(changes)("%s in %s after %s", (schedule, zone, after, slots) => {
  const found = slotsOf(schedule, zone, after, slots.length);
  expect(found.map((slot) => slot.slice(5, 16).replace("T", " "))).toEqual(slots);
});

const golden: [what: string, schedule: string, zone: string, after: string, slots: string[]][] = [
  [
    "a time in the spring gap fires at the end of the gap, and the next day at its own time",
    "30 2 * * *",
    "Europe/Berlin",
    "2026-03-28T00:00:00Z",
    ["2026-03-28T01:30:00.000Z", "2026-03-29T01:00:00.000Z", "2026-03-30T00:30:00.000Z"],
  ],
  [
    "a time that autumn repeats fires once, the first time",
    "30 2 * * *",
    "Europe/Berlin",
    "2026-10-24T12:00:00Z",
    ["2026-10-25T00:30:00.000Z", "2026-10-26T01:30:00.000Z"],
  ],
  [
    "an hourly schedule fires every real hour, also in the hour that autumn repeats",
    "0 * * * *",
    "Europe/Berlin",
    "2026-10-24T22:30:00Z",
    [
      "2026-10-24T23:00:00.000Z",
      "2026-10-25T00:00:00.000Z",
      "2026-10-25T01:00:00.000Z",
      "2026-10-25T02:00:00.000Z",
    ],
  ],
  [
    "an hourly schedule fires every real hour, also where spring leaves one out",
    "0 * * * *",
    "Europe/Berlin",
    "2026-03-28T23:30:00Z",
    ["2026-03-29T00:00:00.000Z", "2026-03-29T01:00:00.000Z", "2026-03-29T02:00:00.000Z"],
  ],
  [
    "a time in the spring gap fires at the end of the gap",
    "30 2 * * *",
    "America/New_York",
    "2026-03-07T12:00:00Z",
    ["2026-03-08T07:00:00.000Z", "2026-03-09T06:30:00.000Z"],
  ],
  [
    "a time that autumn repeats fires once, the first time",
    "30 1 * * *",
    "America/New_York",
    "2026-10-31T12:00:00Z",
    ["2026-11-01T05:30:00.000Z", "2026-11-02T06:30:00.000Z"],
  ],
  [
    "nine in the morning stays nine in the morning on both sides of a change",
    "0 9 * * *",
    "America/New_York",
    "2026-03-07T12:00:00Z",
    ["2026-03-07T14:00:00.000Z", "2026-03-08T13:00:00.000Z"],
  ],
  [
    "a zone with a half-hour offset and no daylight saving keeps its time all year",
    "30 9 * * *",
    "Asia/Kolkata",
    "2026-03-28T12:00:00Z",
    ["2026-03-29T04:00:00.000Z", "2026-03-30T04:00:00.000Z"],
  ],
  [
    "a gap of half an hour: the time in it fires at its end",
    "15 2 * * *",
    "Australia/Lord_Howe",
    "2026-10-02T00:00:00Z",
    ["2026-10-02T15:45:00.000Z", "2026-10-03T15:30:00.000Z", "2026-10-04T15:15:00.000Z"],
  ],
  [
    "a repeated half hour: the time in it fires once, the first time",
    "45 1 * * *",
    "Australia/Lord_Howe",
    "2026-04-04T00:00:00Z",
    ["2026-04-04T14:45:00.000Z", "2026-04-05T15:15:00.000Z"],
  ],
];

for (const [what, schedule, zone, after, slots] of golden) {
  test(`${zone}, ${schedule}: ${what}`, () => {
    expect(slotsOf(schedule, zone, after, slots.length)).toEqual(slots);
    // Looking back gives the same slots.
    for (let i = 1; i < slots.length; i++) {
      expect(previousSlot({ schedule, timeZone: zone }, new Date(slots[i]!))?.toISOString()).toBe(
        slots[i - 1],
      );
    }
  });
}

test("the next slot comes strictly after the moment, the previous one strictly before it", () => {
  const slot = new Date("2026-01-01T09:00:00Z");
  const nine = { schedule: "0 9 * * *", timeZone: "UTC" };
  expect(nextSlot(nine, slot)?.toISOString()).toBe("2026-01-02T09:00:00.000Z");
  expect(nextSlot(nine, new Date(slot.getTime() - 1))).toEqual(slot);
  expect(previousSlot(nine, slot)?.toISOString()).toBe("2025-12-31T09:00:00.000Z");
  expect(previousSlot(nine, new Date(slot.getTime() + 1_000))).toEqual(slot);
});

test("a schedule with six parts counts seconds", () => {
  expect(slotsOf("*/20 * * * * *", "UTC", "2026-01-01T00:00:01Z", 2)).toEqual([
    "2026-01-01T00:00:20.000Z",
    "2026-01-01T00:00:40.000Z",
  ]);
});

test("the years that a timestamp may begin with have no slots, and are no error", () => {
  for (const timeZone of ["UTC", "Pacific/Apia", "Etc/GMT-14"]) {
    for (const schedule of ["0 9 29 2 *", "* * * * *", "@every 1h"]) {
      for (const year of ["0001", "0099", "0100"]) {
        const next = nextSlot({ schedule, timeZone }, new Date(`${year}-01-01T00:00:00Z`));
        expect(next?.getUTCFullYear()).toBeGreaterThanOrEqual(999);
        expect(() => previousSlot({ schedule, timeZone }, new Date(`${year}-01-01T00:00:00Z`))).not.toThrow();
      }
    }
  }
});

test("the 29th of February is waited for", () => {
  expect(slotsOf("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1)).toEqual(["2028-02-29T00:00:00.000Z"]);
});

const refused: [schedule: string, zone: string, field: string, message: RegExp][] = [
  ["every full moon", "UTC", "spec.schedule", /it has 3 fields; a cron expression has five fields .* or six/],
  ["61 * * * *", "UTC", "spec.schedule", /there is no minute 61: minutes go from 0 to 59/],
  ["0 9 32 * *", "UTC", "spec.schedule", /there is no day 32: days go from 1 to 31/],
  ["0 9 0 * *", "UTC", "spec.schedule", /there is no day 0: days go from 1 to 31/],
  ["0 24 * * *", "UTC", "spec.schedule", /there is no hour 24: hours go from 0 to 23; midnight is hour 0/],
  ["0 9 * 13 *", "UTC", "spec.schedule", /there is no month 13: months go from 1 to 12/],
  ["0 9 * * 8", "UTC", "spec.schedule", /there is no weekday 8: weekdays go from 0 to 7/],
  ["0 9 * * MONDAY", "UTC", "spec.schedule", /"MONDAY" is written MON/],
  ["0 9 * * MON#6", "UTC", "spec.schedule", /#1 to #5/],
  ["*/90 * * * *", "UTC", "spec.schedule", /longer than the 60 minutes .* every = "90m"/],
  ["0 */0 * * *", "UTC", "spec.schedule", /a step must be at least 1/],
  ["0 9,, * * *", "UTC", "spec.schedule", /empty item/],
  ["", "UTC", "spec.schedule", /it is empty/],
  ["* * * * * * *", "UTC", "spec.schedule", /it has 7 fields; .*a field of years is not taken/],
  ["0 9 * *", "UTC", "spec.schedule", /it has 4 fields/],
  ["0 0 31 2 *", "UTC", "spec.schedule", /never fires/],
  ["@reboot", "UTC", "spec.schedule", /not a time/],
  ["@fortnightly", "UTC", "spec.schedule", /is not known; there are @hourly/],
  ["2026-12-01T09:00", "UTC", "spec.schedule", /is a moment; to fire once, write at = "2026-12-01T09:00"/],
  ["2026-12-01", "UTC", "spec.schedule", /is a moment/],
  ["90m", "UTC", "spec.schedule", /write every = "90m"/],
  ["@every", "UTC", "spec.schedule", /has no length/],
  ["@every soon", "UTC", "spec.schedule", /length "soon" is not understood/],
  ["@at 2026-02-30T09:00", "UTC", "spec.schedule", /no date 2026-02-30/],
  ["@at 2026-12-01", "UTC", "spec.schedule", /no time of day; write it like 2026-12-01T09:00/],
  ["@at noon", "UTC", "spec.schedule", /"noon" is no moment/],
  ["H(30-10) * * * *", "UTC", "spec.schedule", /wrong way round/],
  ["0 9 * * *", "Mars/Olympus_Mons", "spec.time_zone", /does not exist; use the name of a zone/],
  ["0 9 * * *", "+02:00", "spec.time_zone", /offset.* did you mean "Etc\/GMT-2"/],
  ["0 9 * * *", "", "spec.time_zone", /IANA/],
];

for (const [schedule, zone, field, message] of refused) {
  test(`"${schedule}" in "${zone}" is refused, and ${field} is named`, () => {
    expect(() => checkSchedule({ schedule, timeZone: zone })).toThrow(
      expect.objectContaining({
        reason: "invalid_argument",
        field,
        message: expect.stringMatching(message),
      }),
    );
  });
}

test("a watcher's jitter is the same for ever, within its bound, and spread over it", () => {
  // The published value of FNV-1a for "a": with another hash every watcher's runs would move.
  expect(jitterOf("a", 1_000_000)).toBe(0xe40c292c % 1_000_001);
  expect(jitterOf("a", 0)).toBe(0);
  const offsets = Array.from({ length: 2_000 }, () => jitterOf(newId(), 60_000));
  expect(Math.min(...offsets)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...offsets)).toBeLessThanOrEqual(60_000);
  const tenths = Array.from(
    { length: 10 },
    (_, tenth) => offsets.filter((offset) => Math.floor(offset / 6_000.1) === tenth).length,
  );
  // 200 are expected in each; 100 would be seven standard deviations away.
  expect(Math.min(...tenths)).toBeGreaterThan(100);
});

test("what people write is understood", () => {
  const after = "2026-01-01T00:00:30Z";
  const same = (written: string, meant: string) =>
    expect(slotsOf(written, "UTC", after, 6), written).toEqual(slotsOf(meant, "UTC", after, 6));
  same("0/15 * * * *", "*/15 * * * *");
  same("5/20 * * * *", "5,25,45 * * * *");
  same("0 22-2 * * *", "0 0,1,2,22,23 * * *");
  same("0 9 * * FRI-MON", "0 9 * * 0,1,5,6");
  same("0 9 * * 5-7", "0 9 * * 0,5,6");
  same("0 9 ? * mon", "0 9 * * 1");
  same("0 9 */1 * 1", "0 9 * * 1");
  same("0  9\t* jan-mar *", "0 9 * 1-3 *");
  same("@Daily", "0 0 * * *");
  same("@midnight", "0 0 * * *");
});

test("a hashed minute is the same for a watcher for ever, and spread over watchers", () => {
  const minuteOf = (schedule: string, watcherId: string) =>
    nextSlot({ schedule, timeZone: "UTC", watcherId }, new Date("2026-01-01T00:00:00Z"))!.getUTCMinutes();
  const watchers = Array.from({ length: 500 }, () => newId());
  for (const watcherId of watchers.slice(0, 20)) {
    expect(minuteOf("H 9 * * *", watcherId)).toBe(minuteOf("H 9 * * *", watcherId));
    expect(minuteOf("H(10-19) 9 * * *", watcherId)).toBeGreaterThanOrEqual(10);
    expect(minuteOf("H(10-19) 9 * * *", watcherId)).toBeLessThanOrEqual(19);
  }
  // The minute of this id: another hash would move every watcher's slots.
  expect(minuteOf("H 9 * * *", "018f0000-0000-7000-8000-000000000001")).toBe(24);
  expect(new Set(watchers.map((watcherId) => minuteOf("H 9 * * *", watcherId))).size).toBeGreaterThan(50);
  const quarters = { schedule: "H/15 * * * *", timeZone: "UTC", watcherId: watchers[0]! };
  let slot = nextSlot(quarters, new Date("2026-01-01T00:00:00Z"))!;
  for (let i = 0; i < 10; i++) {
    const next = nextSlot(quarters, slot)!;
    expect(next.getTime() - slot.getTime()).toBe(15 * 60_000);
    slot = next;
  }
});

test("@every counts elapsed time from its anchor, and from 1970 without one", () => {
  expect(slotsOf("@every 90m", "Europe/Berlin", "2026-03-29T00:00:00Z", 2)).toEqual([
    "2026-03-29T01:30:00.000Z",
    "2026-03-29T03:00:00.000Z",
  ]);
  // Nine in Berlin at the start is seven in UTC, then and for ever: later changes of the clocks do
  // not matter.
  expect(slotsOf("@every 24h from 2026-10-24T09:00", "Europe/Berlin", "2026-10-24T00:00:00Z", 2)).toEqual([
    "2026-10-24T07:00:00.000Z",
    "2026-10-25T07:00:00.000Z",
  ]);
  expect(slotsOf("@every 1h30m 2026-01-01T00:10Z", "UTC", "2025-12-31T00:00:00Z", 1)).toEqual([
    "2025-12-31T00:10:00.000Z",
  ]);
});

test("@at has one slot: at the end of a gap, the first of a repeated time, and none afterwards", () => {
  const at = (moment: string, timeZone: string) =>
    nextSlot({ schedule: `@at ${moment}`, timeZone }, new Date(0))?.toISOString();
  expect(at("2026-12-01T09:00", "Europe/Berlin")).toBe("2026-12-01T08:00:00.000Z");
  expect(at("2026-03-29T02:30", "Europe/Berlin")).toBe("2026-03-29T01:00:00.000Z");
  expect(at("2026-10-25T02:30", "Europe/Berlin")).toBe("2026-10-25T00:30:00.000Z");
  expect(at("2026-12-01T09:00:30+05:30", "Europe/Berlin")).toBe("2026-12-01T03:30:30.000Z");
  expect(at("2026-12-01 09:00Z", "Europe/Berlin")).toBe("2026-12-01T09:00:00.000Z");
  const once = { schedule: "@at 2026-12-01T09:00Z", timeZone: "UTC" };
  expect(nextSlot(once, new Date("2026-12-01T09:00:00Z"))).toBeUndefined();
  const now = new Date("2026-12-02T00:00:00Z");
  expect(() => checkSchedule(once, { now })).toThrow(/in the past/);
  // Without the current time, the slot may have passed.
  expect(() => checkSchedule(once)).not.toThrow();
});

test("slots that are closer than the floor are refused, whatever the field they hide in", () => {
  const check = (schedule: string, intervalMsMin: number) => () =>
    checkSchedule({ schedule, timeZone: "Europe/Berlin" }, { intervalMsMin });
  for (const schedule of ["* * * * * *", "*/5 * * * * *", "0,55 * * * * *", "3,9 0 9 * * *", "@every 5s"]) {
    expect(check(schedule, 10_000), schedule).toThrow(/apart/);
    expect(check(schedule, 1_000), schedule).not.toThrow();
  }
  for (const schedule of ["*/10 * * * * *", "0,30 * * * * *", "* * * * *", "0 9 * * *", "@every 10s"]) {
    expect(check(schedule, 10_000), schedule).not.toThrow();
  }
  expect(check("*/5 * * * *", 900_000)).toThrow(/300 s apart, and the shortest .* 900 s/);
  expect(check("0 9 * * *", 900_000)).not.toThrow();
});
