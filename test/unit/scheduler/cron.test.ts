import { expect, test } from "vitest";
import { newId } from "../../../src/ids.ts";
import { checkSchedule, jitterOf, nextSlot, previousSlot } from "../../../src/scheduler/cron.ts";

/** The next `count` slots after a moment, as UTC. */
function slotsOf(schedule: string, zone: string, after: string, count: number): string[] {
  const slots: string[] = [];
  let slot = new Date(after);
  while (slots.length < count) {
    slot = nextSlot(schedule, zone, slot)!;
    slots.push(slot.toISOString());
  }
  return slots;
}

/** Dates worked out by hand from the zones' rules, not by the library. */
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
      expect(previousSlot(schedule, zone, new Date(slots[i]!))?.toISOString()).toBe(slots[i - 1]);
    }
  });
}

test("the next slot comes strictly after the moment, the previous one strictly before it", () => {
  const slot = new Date("2026-01-01T09:00:00Z");
  expect(nextSlot("0 9 * * *", "UTC", slot)?.toISOString()).toBe("2026-01-02T09:00:00.000Z");
  expect(nextSlot("0 9 * * *", "UTC", new Date(slot.getTime() - 1))).toEqual(slot);
  expect(previousSlot("0 9 * * *", "UTC", slot)?.toISOString()).toBe("2025-12-31T09:00:00.000Z");
  expect(previousSlot("0 9 * * *", "UTC", new Date(slot.getTime() + 1_000))).toEqual(slot);
});

test("a schedule with six parts counts seconds", () => {
  expect(slotsOf("*/20 * * * * *", "UTC", "2026-01-01T00:00:01Z", 2)).toEqual([
    "2026-01-01T00:00:20.000Z",
    "2026-01-01T00:00:40.000Z",
  ]);
});

test("the 29th of February is waited for", () => {
  expect(slotsOf("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", 1)).toEqual(["2028-02-29T00:00:00.000Z"]);
});

const refused: [schedule: string, zone: string, field: string, message: RegExp][] = [
  ["every full moon", "UTC", "spec.schedule", /not a cron expression/],
  ["61 * * * *", "UTC", "spec.schedule", /not a cron expression/],
  ["", "UTC", "spec.schedule", /not a cron expression/],
  ["* * * * * * *", "UTC", "spec.schedule", /not a cron expression/],
  ["0 0 31 2 *", "UTC", "spec.schedule", /never fires/],
  ["0 9 * * *", "Mars/Olympus_Mons", "spec.time_zone", /does not exist/],
  ["0 9 * * *", "+02:00", "spec.time_zone", /IANA/],
  ["0 9 * * *", "", "spec.time_zone", /does not exist/],
];

for (const [schedule, zone, field, message] of refused) {
  test(`"${schedule}" in "${zone}" is refused, and ${field} is named`, () => {
    expect(() => checkSchedule(schedule, zone)).toThrow(
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
