import { expect, test } from "vitest";
import { slicesOf } from "../../../src/batches/slices.ts";

test("slices have all items in their order, and a turn of the event loop between them", async () => {
  const items = Array.from({ length: 25 }, (_, index) => index);
  const sizes: number[] = [];
  const seen: number[] = [];
  let turnsBetween = 0;
  for await (const slice of slicesOf(items, 10)) {
    expect(turnsBetween).toBe(sizes.length);
    sizes.push(slice.length);
    seen.push(...slice);
    setImmediate(() => turnsBetween++);
  }
  expect(sizes).toEqual([10, 10, 5]);
  expect(seen).toEqual(items);
});
