/** What is read for counts of a time: few blocks of devices, sums of hours, and few ends. */
import { expect, test } from "vitest";
import { countParts } from "../../../src/store/work/runs/count-ranges.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const today = Date.parse("2026-03-20T00:00:00Z");
/** Forty closed days, and today until 13:20. */
const until = today + 13 * hourMs + 20 * 60_000;
const counted = new Map(
  Array.from({ length: 41 }, (_, ago) => [
    today - ago * dayMs,
    ago === 0 ? until : today - (ago - 1) * dayMs,
  ]),
);
const now = until + 7 * 60_000 + 1;
const ofDevices = (parts: ReturnType<typeof countParts>) => parts.rows.filter((range) => range.ofDevices);

test("a month is made up of few blocks, and less than three hours of its devices are counted one by one at its beginning", () => {
  for (let hour = 0; hour < 24; hour++) {
    const start = now - 30 * dayMs - hour * hourMs;
    const parts = countParts({ start, end: now, spanMs: dayMs }, counted);
    const hours = parts.blocks.reduce((sum, block) => sum + block.hours, 0);
    expect(parts.blocks.length).toBeLessThan(20);
    expect(hours * hourMs).toBeGreaterThan(30 * dayMs - 3 * hourMs);
    expect(parts.blocks.some((block) => block.hours > 24)).toBe(true);
    const [first, last] = ofDevices(parts);
    expect(first!.to - first!.from).toBeLessThan(3 * hourMs);
    expect(last).toEqual({ from: until, to: now, ofSpans: true, ofDevices: true });
  }
});

test("the blocks and the times between them are the asked time, each moment once", () => {
  for (const [start, end] of [
    [today - 35 * dayMs + 1, now],
    [today - 50 * dayMs, today - 2 * dayMs],
    [today - dayMs + 5 * hourMs, today + 4 * hourMs],
    [today + hourMs, until],
    [today + 2 * hourMs, until - 1],
    [until - 10, until + 10],
    [until + 1, now],
  ] as const) {
    const { blocks, rows } = countParts({ start, end, spanMs: dayMs }, counted);
    const times = [
      ...blocks.map((block) => [block.start, Math.min(block.start + block.hours * hourMs, until)]),
      ...ofDevices({ rows, blocks, days: [], blocked: [] }).map(({ from, to }) => [from, to]),
    ].sort(([a], [b]) => a! - b!);
    let at: number = start;
    for (const [from, to] of times) {
      expect(from).toBe(at);
      at = to!;
    }
    expect(at).toBe(end);
  }
});

test("a block of several days is not read if one of them has no sums, or is under way", () => {
  const gap = new Map(counted);
  gap.delete(today - 5 * dayMs);
  const { blocks } = countParts({ start: today - 32 * dayMs, end: now, spanMs: dayMs }, gap);
  for (const { start, hours } of blocks.filter((block) => block.hours >= 24)) {
    for (let day = start; day < start + hours * hourMs; day += dayMs) expect(gap.get(day)).toBe(day + dayMs);
  }
});
