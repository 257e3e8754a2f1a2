import { expect, test, vi } from "vitest";
import { createBatcher } from "../../../src/batches/batcher.ts";

/** A batcher whose batches the test ends. */
function setUp(
  options: {
    itemsMax?: number;
    queueMax?: number;
    gatherMs?: number;
    busy?: { size: number; ms: number };
  } = {},
) {
  const batches: { items: string[]; answer: (results: string[]) => void; fail: (error: Error) => void }[] =
    [];
  let begun = Promise.withResolvers<void>();
  const sizes: number[] = [];
  const batcher = createBatcher<string, string>({
    run: (items) => {
      const { promise, resolve, reject } = Promise.withResolvers<string[]>();
      batches.push({ items, answer: resolve, fail: reject });
      begun.resolve();
      return promise;
    },
    itemsMax: options.itemsMax ?? 100,
    queueMax: options.queueMax ?? 100,
    ...(options.gatherMs === undefined ? {} : { gatherMs: options.gatherMs }),
    ...(options.busy === undefined ? {} : { busy: options.busy }),
    overflow: () => new Error("full"),
    onBatch: (size) => sizes.push(size),
  });
  /** The next batch. */
  const next = async () => {
    await begun.promise;
    begun = Promise.withResolvers();
    return batches.at(-1)!;
  };
  return { batcher, batches, sizes, next };
}

const upper = (items: string[]) => items.map((item) => item.toUpperCase());

test("a single item goes at once, and gets its own answer", async () => {
  const { batcher, next } = setUp();
  const answer = batcher.add("a");
  const batch = await next();
  expect(batch.items).toEqual(["a"]);
  expect(batcher.depth).toBe(1);
  batch.answer(["A"]);
  expect(await answer).toBe("A");
});

test("what arrives in the same turn, and what arrives during a batch, goes together", async () => {
  const { batcher, batches, next, sizes } = setUp();
  const early = ["a", "b"].map((item) => batcher.add(item));
  const first = await next();
  expect(first.items).toEqual(["a", "b"]);
  const late = ["c", "d", "e"].map((item) => batcher.add(item));
  expect(batcher.depth).toBe(5);
  first.answer(upper(first.items));
  const second = await next();
  expect(second.items).toEqual(["c", "d", "e"]);
  second.answer(upper(second.items));
  expect(await Promise.all([...early, ...late])).toEqual(["A", "B", "C", "D", "E"]);
  expect(batches).toHaveLength(2);
  expect(sizes).toEqual([2, 3]);
});

test("what is in no hurry waits for what comes in other turns, but not beyond a full batch", async () => {
  vi.useFakeTimers();
  try {
    const { batcher, batches } = setUp({ gatherMs: 20, itemsMax: 3 });
    const answers = [batcher.add("a")];
    await vi.advanceTimersByTimeAsync(19);
    expect(batches).toHaveLength(0);
    answers.push(batcher.add("b"));
    await vi.advanceTimersByTimeAsync(1);
    expect(batches[0]!.items).toEqual(["a", "b"]);
    answers.push(...["c", "d", "e"].map((item) => batcher.add(item)));
    batches[0]!.answer(["A", "B"]);
    await vi.advanceTimersByTimeAsync(0);
    expect(batches[1]!.items).toEqual(["c", "d", "e"]);
    batches[1]!.answer(["C", "D", "E"]);
    expect(await Promise.all(answers)).toEqual(["A", "B", "C", "D", "E"]);
  } finally {
    vi.useRealTimers();
  }
});

test("after a large batch the next one waits for as many, and after a small one it does not", async () => {
  vi.useFakeTimers();
  try {
    const { batcher, batches } = setUp({ busy: { size: 2, ms: 8 } });
    const answers = ["a", "b"].map((item) => batcher.add(item));
    await vi.advanceTimersByTimeAsync(0);
    answers.push(batcher.add("c"));
    batches[0]!.answer(["A", "B"]);
    await vi.advanceTimersByTimeAsync(7);
    expect(batches).toHaveLength(1);
    await vi.advanceTimersByTimeAsync(1);
    expect(batches[1]!.items).toEqual(["c"]);
    answers.push(batcher.add("d"));
    batches[1]!.answer(["C"]);
    await vi.advanceTimersByTimeAsync(0);
    expect(batches[2]!.items).toEqual(["d"]);
    batches[2]!.answer(["D"]);
    expect(await Promise.all(answers)).toEqual(["A", "B", "C", "D"]);
  } finally {
    vi.useRealTimers();
  }
});

test("a batch takes no more than its bound, and keeps the order", async () => {
  const { batcher, next } = setUp({ itemsMax: 2 });
  const answers = ["a", "b", "c"].map((item) => batcher.add(item));
  const first = await next();
  expect(first.items).toEqual(["a", "b"]);
  first.answer(["A", "B"]);
  const second = await next();
  expect(second.items).toEqual(["c"]);
  second.answer(["C"]);
  expect(await Promise.all(answers)).toEqual(["A", "B", "C"]);
});

test("beyond its bound the queue refuses, and serves those that wait all the same", async () => {
  const { batcher, next } = setUp({ queueMax: 2 });
  const answers = ["a", "b"].map((item) => batcher.add(item));
  await expect(batcher.add("c")).rejects.toThrow("full");
  const batch = await next();
  batch.answer(upper(batch.items));
  expect(await Promise.all(answers)).toEqual(["A", "B"]);
});

test("a batch that fails fails its own items, and the next batch goes on", async () => {
  const { batcher, next } = setUp();
  const bad = batcher.add("a");
  const first = await next();
  const good = batcher.add("b");
  first.fail(new Error("the database said no"));
  await expect(bad).rejects.toThrow("the database said no");
  const second = await next();
  second.answer(["B"]);
  expect(await good).toBe("B");
});

test("a batch that is answered with the wrong number of results gives nobody another's answer", async () => {
  const { batcher, next } = setUp();
  const answers = ["a", "b"].map((item) => batcher.add(item));
  (await next()).answer(["A"]);
  for (const answer of answers) await expect(answer).rejects.toThrow("a batch of 2 was answered with 1");
});

test("idle waits for everything that was added, and is at once when there is nothing", async () => {
  const { batcher, next } = setUp();
  await batcher.idle();
  const answer = batcher.add("a");
  let isIdle = false;
  const idle = batcher.idle().then(() => {
    isIdle = true;
  });
  const batch = await next();
  expect(isIdle).toBe(false);
  batch.answer(["A"]);
  await answer;
  await idle;
  expect(batcher.depth).toBe(0);
});

test("an item that is added as the last batch ends is not forgotten", async () => {
  const { batcher, next } = setUp();
  const first = batcher.add("a");
  const chained = first.then(() => batcher.add("b")).then((answer) => answer);
  (await next()).answer(["A"]);
  const second = await next();
  expect(second.items).toEqual(["b"]);
  second.answer(["B"]);
  expect(await chained).toBe("B");
});

test("with isolation, the item that fails its batch fails alone", async () => {
  const batcher = createBatcher<string, string>({
    run: async (items) => {
      if (items.includes("bad")) throw new Error("refused");
      return upper(items);
    },
    itemsMax: 100,
    queueMax: 100,
    overflow: () => new Error("full"),
    mayIsolate: () => true,
  });
  const results = await Promise.allSettled(["a", "bad", "b"].map((item) => batcher.add(item)));
  expect(results.map((result) => (result.status === "fulfilled" ? result.value : "failed"))).toEqual([
    "A",
    "failed",
    "B",
  ]);
});

test("an item that is added the moment a batch ends is not forgotten", async () => {
  const batcher = createBatcher<string, string>({
    run: async (items) => upper(items),
    itemsMax: 1,
    queueMax: 100,
    overflow: () => new Error("full"),
  });
  // Every microtask around the end of the batch is tried.
  for (let turns = 0; turns < 20; turns++) {
    void batcher.add("first");
    for (let turn = 0; turn < turns; turn++) await Promise.resolve();
    expect(await batcher.add("second")).toBe("SECOND");
  }
});

test("a batch is bounded by the weight of its items, and a heavier item goes alone", async () => {
  const batches: number[][] = [];
  const batcher = createBatcher<number, number>({
    run: async (items) => {
      batches.push(items);
      return items;
    },
    itemsMax: 3,
    weight: { of: (item) => item, max: 10 },
    queueMax: 100,
    overflow: () => new Error("full"),
  });
  await Promise.all([4, 6, 1, 50, 1, 1, 1, 1].map((item) => batcher.add(item)));
  expect(batches).toEqual([[4, 6], [1], [50], [1, 1, 1], [1]]);
});

test("the items of a large batch are answered in several turns of the event loop, and the next batch waits for them", async () => {
  const { batcher, batches, next } = setUp();
  let turn = 0;
  const isDone = new AbortController();
  const count = () => {
    turn++;
    if (!isDone.signal.aborted) setImmediate(count);
  };
  const items = Array.from({ length: 100 }, (_, index) => `item ${index}`);
  const answeredIn: number[] = [];
  const answers = items.map((item) => batcher.add(item).then(() => void answeredIn.push(turn)));
  const first = await next();
  count();
  const later = batcher.add("later");
  first.answer(upper(first.items));
  await Promise.all(answers);
  isDone.abort();
  const inTurn = new Map([...new Set(answeredIn)].map((one) => [one, answeredIn.filter((of) => of === one)]));
  expect(Math.max(...[...inTurn.values()].map(({ length }) => length))).toBeLessThanOrEqual(32);
  const second = batches.length > 1 ? batches[1]! : await next();
  expect(second.items).toEqual(["later"]);
  second.answer(["LATER"]);
  expect(await later).toBe("LATER");
});
