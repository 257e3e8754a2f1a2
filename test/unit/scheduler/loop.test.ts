import { expect, test } from "vitest";
import { commonMs, startLoop, untilNextPass } from "../../../src/scheduler/loop.ts";
import { createLogger } from "../../../src/telemetry/log.ts";

test("idle loops wake at common moments, however long they wait and whenever they began", () => {
  for (const waitMs of [4_000, 5_000, 10_000, 15_000]) {
    for (const began of [0.2, 1_234, 3_990, 7_999.5, 123_456_789]) {
      const at = began + untilNextPass(waitMs, began);
      expect(at % commonMs).toBeCloseTo(0, 5);
      expect(at).toBeLessThanOrEqual(began + waitMs + 5);
      expect(at).toBeGreaterThanOrEqual(began);
      // From a common moment to a common moment: no pass is early for ever.
      expect(untilNextPass(waitMs, at + 0.4)).toBeGreaterThan(waitMs - commonMs - 1);
    }
  }
});

test("a short wait is exact", () => {
  expect(untilNextPass(0, 1_234)).toBe(0);
  expect(untilNextPass(3_999, 1_234)).toBe(3_999);
});

test("a loop goes on with what the start has done, and a request does not wait for it", async () => {
  const begin = (firstAfterMs: number) => {
    const passes: boolean[] = [];
    const { promise: isBegun, resolve } = Promise.withResolvers<void>();
    const loop = startLoop({
      ...{ name: "test", log: createLogger({ name: "test", level: "silent" }), firstAfterMs },
      async pass(_, wasPoked) {
        passes.push(wasPoked);
        resolve();
        return 3_600_000;
      },
    });
    return { loop, passes, isBegun };
  };
  const late = begin(3_600_000);
  const soon = begin(1);
  await soon.isBegun;
  expect([soon.passes, late.passes]).toEqual([[false], []]);
  late.loop.poke();
  await late.isBegun;
  expect(late.passes).toEqual([true]);
  await Promise.all([soon.loop.stop(), late.loop.stop()]);
});

test("a loop that is stopped before its first pass makes none", async () => {
  let passes = 0;
  const loop = startLoop({
    ...{ name: "test", log: createLogger({ name: "test", level: "silent" }), firstAfterMs: 3_600_000 },
    async pass() {
      passes += 1;
      return 3_600_000;
    },
  });
  await loop.stop();
  expect(passes).toBe(0);
});
