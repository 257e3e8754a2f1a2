import { expect, test } from "vitest";
import { bisect } from "../../src/batches/batcher.ts";

const numbers = (count: number) => Array.from({ length: count }, (_, index) => index);

function search(bad: ReadonlySet<number>) {
  const parts: number[][] = [];
  const found: number[] = [];
  const done = bisect(
    numbers(64),
    async (part) => {
      parts.push([...part]);
      if (part.some((item) => bad.has(item))) throw new Error("refused");
      return part.map(String);
    },
    {
      mayIsolate: () => true,
      onBad(item) {
        found.push(item);
        return ["bad"];
      },
    },
  );
  return { done, parts, found };
}

test("without a refusal all items run together", async () => {
  const { done, parts } = search(new Set());
  expect(await done).toEqual(numbers(64).map(String));
  expect(parts).toHaveLength(1);
});

test("bad items are found alone, in few tries, and the others are done in their order", async () => {
  const { done, parts, found } = search(new Set([3, 40]));
  expect(await done).toEqual(numbers(64).map((item) => (item === 3 || item === 40 ? "bad" : String(item))));
  expect(found).toEqual([3, 40]);
  expect(parts.length).toBeLessThan(27);
});

test("an error that no single item causes ends the search, and is not searched for", async () => {
  let tries = 0;
  const run = async () => {
    tries += 1;
    throw new Error("away");
  };
  const options = { mayIsolate: () => false, onBad: () => [] };
  await expect(bisect(numbers(8), run, options)).rejects.toThrow("away");
  expect(tries).toBe(1);
});
