/** What agents and providers say about limits, in their own words. */
import fc from "fast-check";
import { afterEach, expect, test, vi } from "vitest";
import { retryAfterOf } from "../../../clients/ts/src/agents/retry-later.ts";

afterEach(() => void vi.unstubAllEnvs());

const now = Date.parse("2026-03-01T12:00:00Z");
const [second, minute, hour, day] = [1_000, 60_000, 3_600_000, 86_400_000];

test.each<[text: string, ms: number]>([
  // Epochs.
  [`Claude AI usage limit reached|${now / 1000 + 3_600}`, hour],
  [`Claude AI usage limit reached|${now + 3_600_000}`, hour],
  [
    `{"type":"usage_limit_reached","message":"The usage limit has been reached","resets_at":${now / 1000 + 90}}`,
    90 * second,
  ],
  [`429 rate_limit_error: reset_at=${now / 1000 + 60}`, minute],
  // Dates.
  ["429: quota exceeded, resets at 2026-03-01T14:00:00Z", 2 * hour],
  ["usage limit: available again after 2026-03-01 14:00:00 UTC", 2 * hour],
  ["rate limit exceeded until 2026-03-01T14:00:00.500+01:00", hour + 500],
  ["429 Too Many Requests; Retry-After: Sun, 01 Mar 2026 12:10:00 GMT", 10 * minute],
  // Lengths.
  ["429 Too Many Requests, retry-after: 30", 30 * second],
  ['{"error":{"code":429,"retry_after":"7"}}', 7 * second],
  ["Rate limit reached for gpt-5 on tokens per min. Please try again in 1.898s. Visit …", 1_898],
  ["Rate limit reached. Please try again in 1200ms.", 1_200],
  ["Rate limit reached. Please try again in 28ms.", second],
  ["You've hit your usage limit. Try again in 2 days 3 hours 5 minutes.", 2 * day + 3 * hour + 5 * minute],
  ["overloaded: retry in 1 hour and 30 minutes", 90 * minute],
  ["Too many requests, wait 6m0s", 6 * minute],
  // Times of the day.
  ["5-hour limit reached: you've hit your limit · resets 3pm (Europe/Berlin)", 2 * hour],
  ["You've hit your limit · resets 1:30am (Europe/Berlin)", 12 * hour + 30 * minute],
  ["You've hit your usage limit · resets 3pm (America/New_York)", 8 * hour],
  ["You've hit your limit · resets at 9:45 a.m. (America/New_York)", 2 * hour + 45 * minute],
  ["usage limit reached, try again at 15:00 UTC", 3 * hour],
  ["usage limit reached, resets at 11:55 UTC", second],
  ["You've hit your limit · resets Mar 3, 3pm (Europe/Berlin)", 2 * day + 2 * hour],
  [
    "You've hit your usage limit. Upgrade to Pro or try again at Mar 2nd, 2026 3:30 PM (UTC).",
    day + 3.5 * hour,
  ],
  // Nothing is said of the time.
  ["429 Too Many Requests", minute],
  ["Overloaded", minute],
  ["You've hit your usage limit.", 30 * minute],
  ["insufficient_quota: resets 27pm", 30 * minute],
  // Bounds.
  ["usage limit: resets Mar 30, 3pm (UTC)", 7 * day],
  [`usage limit reached|${now / 1000 - 5}`, second],
  ["429: retry-after: 999999999", 7 * day],
])("%s", (text, ms) => {
  expect(retryAfterOf({ text }, now)).toBe(ms);
});

test("a time of the day without a zone is the device's own", () => {
  vi.stubEnv("TZ", "Asia/Tokyo");
  expect(retryAfterOf({ text: "usage limit: try again at 11:30 PM" }, now)).toBe(2.5 * hour);
  vi.stubEnv("TZ", "UTC");
  expect(retryAfterOf({ text: "usage limit: try again at 11:30 PM" }, now)).toBe(11.5 * hour);
});

test("a time in the night of a clock change is the zone's own", () => {
  // 02:00 becomes 03:00 on this night.
  const before = Date.parse("2026-03-28T22:00:00Z");
  const text = (time: string) => `You've hit your limit · resets ${time} (Europe/Berlin)`;
  expect(retryAfterOf({ text: text("3am") }, before)).toBe(3 * hour);
  expect(retryAfterOf({ text: text("4am") }, before)).toBe(4 * hour);
});

test.each([429, 529, 503])("status %i is later, whatever the words", (status) => {
  expect(retryAfterOf({ text: "", status }, now)).toBe(minute);
  expect(retryAfterOf({ text: "resets 3pm (UTC)", status }, now)).toBe(3 * hour);
});

test.each(["401 that key is not good", "no such file: 4290", "it resets 3pm", "", "retry after 5s"])(
  "%j names no limit",
  (text) => {
    expect(retryAfterOf({ text }, now)).toBeUndefined();
  },
);

test("whatever is said, the delay is between a second and a week, or none", () => {
  const words = fc.constantFrom(
    ...[
      "rate limit",
      "resets",
      "at",
      "try again in",
      "retry-after:",
      "3pm",
      "25:61",
      "Feb 31,",
      "(Nowhere/Land)",
    ],
    ...[
      "(Europe/Berlin)",
      "99999999999999",
      "1e9",
      "days",
      "-5",
      "|1789000000",
      "2026-99-99T99:99:99Z",
      "0s",
    ],
  );
  fc.assert(
    fc.property(fc.array(fc.oneof(words, fc.string({ maxLength: 8 })), { maxLength: 12 }), (parts) => {
      const ms = retryAfterOf({ text: parts.join(" "), status: 429 }, now) ?? Number.NaN;
      expect(ms).toBeGreaterThanOrEqual(second);
      expect(ms).toBeLessThanOrEqual(7 * day);
    }),
    { numRuns: 2_000 },
  );
});
