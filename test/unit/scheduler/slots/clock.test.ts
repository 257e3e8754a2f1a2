/** Deviations between two clocks, and the deviations treated as a jump. */
import { expect, test } from "vitest";
import { departure, elapsedMs, judge } from "../../../../src/scheduler/slots/clock.ts";

const hour = 3_600_000;

test("what the time of the answer explains is no departure", () => {
  const offsetMs = 1_000_000;
  // The statement was read by the database at any moment between the two.
  for (const databaseMs of [offsetMs + 500, offsetMs + 700, offsetMs + 10_500]) {
    expect(departure(offsetMs, { databaseMs, sentAtMs: 500, receivedAtMs: 10_500 })).toBe(0);
  }
  const at = (databaseMs: number) =>
    departure(offsetMs, { databaseMs: offsetMs + databaseMs, sentAtMs: 500, receivedAtMs: 510 });
  expect(at(510 + hour)).toBe(hour);
  expect(at(500 - hour)).toBe(-hour);
});

test("a clock that is slewed is steady; one that was set back or by up to an hour is taken as it is; more is in doubt", () => {
  expect([-2_000, 0, 2_000].map(judge)).toEqual(["steady", "steady", "steady"]);
  expect(judge(2_001)).toBe("forward");
  expect(judge(hour)).toBe("forward");
  expect(judge(hour + 1)).toBe("in_doubt");
  expect([-2_001, -1_000 * hour].map(judge)).toEqual(["back", "back"]);
});

test("the clock that it is compared with is not the wall clock", () => {
  const real = Date.now;
  const before = elapsedMs();
  Date.now = () => real() + 45 * 24 * hour;
  try {
    expect(elapsedMs() - before).toBeLessThan(hour);
  } finally {
    Date.now = real;
  }
});
