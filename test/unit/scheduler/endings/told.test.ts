import { expect, test } from "vitest";
import { tellEach } from "../../../../src/scheduler/endings/endings.ts";

test("the ends of a large batch are announced in their order, in several turns of the event loop", async () => {
  const ends = Array.from({ length: 150 }, (_, index) => index);
  const told: number[] = [];
  const sizes: number[] = [];
  let turnsBetween = 0;
  await tellEach(ends, (some) => {
    expect(turnsBetween).toBe(sizes.length);
    sizes.push(some.length);
    told.push(...some);
    setImmediate(() => turnsBetween++);
  });
  expect(told).toEqual(ends);
  expect(sizes).toEqual([64, 64, 22]);
});
