import { expect, test } from "vitest";
import { retryAfterOf } from "../../../clients/ts/src/runner/retry-after.ts";

const now = Date.parse("2026-03-01T12:00:00Z");
const minute = 60_000;
const day = 86_400_000;

test.each<[text: string | undefined, ms: number]>([
  [undefined, 5 * minute],
  ["", 5 * minute],
  ["0", 0],
  ["90", 90_000],
  ["1.5", 1_500],
  ["15m", 15 * minute],
  ["1h30m", 90 * minute],
  ["2026-03-01T12:10:00Z", 10 * minute],
  ["2026-03-01T13:10:00+01:00", 10 * minute],
  ["Sun, 01 Mar 2026 12:10:00 GMT", 10 * minute],
  ["2026-03-01T11:00:00Z", 0],
  ["99999999999", 7 * day],
  ["2030-01-01T00:00:00Z", 7 * day],
])("%s is %i ms", (text, ms) => {
  expect(retryAfterOf(text, now)).toEqual({ ms });
});

test.each(["soon", "-5", "10 minutes or so", "NaN", "0x10", "\u0000"])("%j is told as no time", (text) => {
  expect(retryAfterOf(text, now)).toMatchObject({
    ms: 5 * minute,
    problem: expect.stringContaining("no length"),
  });
});
