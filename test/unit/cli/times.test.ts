import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { describe, expect, test } from "vitest";
import { formatLength } from "../../../src/cli/print/lengths.ts";
import {
  formatAgo,
  formatMoment,
  parseLength,
  parseMoment,
  parseWait,
} from "../../../src/cli/print/times.ts";

const now = Date.UTC(2026, 2, 1, 12, 0, 0);

describe("lengths", () => {
  test.each([
    [0.44, "0.4 ms"],
    [41.2, "41 ms"],
    [3_210, "3.2 s"],
    [9_960, "9 s"],
    [59_900, "59 s"],
    [250_000, "4 m 10 s"],
    [7_500_000, "2 h 5 m"],
    [3 * 86_400_000 + 4 * 3_600_000, "3 d 4 h"],
  ])("%d ms reads as %s", (ms, text) => {
    expect(formatLength(ms)).toBe(text);
  });

  test.each([
    ["90s", 90_000],
    ["1h30m", 5_400_000],
    ["500ms", 500],
    ["2d", 172_800_000],
    ["1.5h", 5_400_000],
  ])("%s is understood", (text, ms) => {
    expect(parseLength(text, "--timeout")).toBe(ms);
  });

  test("a length beyond a hundred years is refused, and a wait is one that a timer can wait for", () => {
    for (const text of ["36501d", "99999999999d", `${"9".repeat(400)}s`])
      expect(() => parseLength(text, "--since"), text).toThrow(/--since: ".*" is longer than 36500 days/);
    expect(() => parseMoment("99999999999d", "--since")).toThrow("--since");
    expect([parseWait("30d", "--within"), parseWait("5m", "--within")]).toEqual([2 ** 31 - 1, 300_000]);
  });

  test.each(["", "5", "five minutes", "10x", "5m-", "-5m"])(
    "'%s' is refused with the option's name",
    (text) => {
      expect(() => parseLength(text, "--timeout")).toThrow("--timeout");
    },
  );
});

describe("moments", () => {
  test.each([
    [now - 400, "now"],
    [now - 3 * 60_000, "3 m ago"],
    [now + 2 * 3_600_000, "in 2 h"],
    [now - 30 * 3_600_000, "30 h ago"],
    [now - 5 * 86_400_000, "5 d ago"],
  ])("are told by their distance", (ms, text) => {
    expect(formatAgo(timestampFromMs(ms), now)).toBe(text);
  });

  test("are printed in the zone that is asked for", () => {
    expect(formatMoment(timestampFromMs(now), "Europe/Berlin")).toBe("2026-03-01 13:00:00");
    expect(formatMoment(undefined)).toBe("");
  });

  test("are read as ISO times, as now, and as how long ago", () => {
    expect(parseMoment("2026-03-01T09:00Z", "--from", now).toISOString()).toBe("2026-03-01T09:00:00.000Z");
    expect(parseMoment("now", "--from", now).getTime()).toBe(now);
    expect(parseMoment("2d", "--from", now).getTime()).toBe(now - 2 * 86_400_000);
    expect(parseMoment("2026-03-01", "--from", now).getHours()).toBe(0);
    expect(() => parseMoment("yesterday", "--from", now)).toThrow("--from");
    expect(() => parseMoment("2026-13-45", "--from", now)).toThrow("--from");
  });
});
