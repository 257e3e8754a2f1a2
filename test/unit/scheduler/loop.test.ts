import { expect, test } from "vitest";
import { commonMs, untilNextPass } from "../../../src/scheduler/loop.ts";

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
