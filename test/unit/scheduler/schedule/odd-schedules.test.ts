import { expect, test } from "vitest";
import { Refusal } from "../../../../src/errors.ts";
import { checkSchedule, nextSlot } from "../../../../src/scheduler/schedule/schedule.ts";

test("a list of marks that croner cannot read is the author's mistake", () => {
  for (const schedule of ["0 0 L,15W,LW 2 5L", "0 0 LW,1 * *"]) {
    expect(() => checkSchedule({ schedule, timeZone: "UTC" })).toThrow(Refusal);
    expect(() => checkSchedule({ schedule, timeZone: "UTC" })).toThrow(/is not a cron expression: LW/);
  }
});

test("no slot lies after the year 9999, which no message could name", () => {
  const last = new Date("9999-12-31T23:59:59Z");
  for (const schedule of ["@every 366d", "@every 1h", "0 0 1 1 *"]) {
    expect(nextSlot({ schedule, timeZone: "UTC" }, last)).toBeUndefined();
  }
  expect(nextSlot({ schedule: "@every 1h", timeZone: "UTC" }, new Date("9999-12-31T22:00:00Z"))).toEqual(
    new Date("9999-12-31T23:00:00Z"),
  );
});
