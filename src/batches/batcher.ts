import { AsyncLocalStorage } from "node:async_hooks";
import { slicesOf } from "./slices.ts";

/**
 * Items answered in one turn of the event loop: what their callers do then, an acknowledgement for
 * instance, takes some 50 µs each.
 */
const answersPerTurn = 32;

/**
 * Natural batching: items that arrive while a batch is under way wait together for the next batch,
 * which takes all of them, up to a bound. A single item pays one round trip; ten thousand items pay
 * a few.
 */
export type Batcher<Item, Result> = {
  /**
   * Resolves with the item's result when the item's batch is done. Rejects with the batch's error,
   * and if the queue is full.
   */
  add(item: Item): Promise<Result>;
  /** The number of items that wait or are under way. */
  readonly depth: number;
  /** Resolves when all added items have their answers. */
  idle(): Promise<void>;
};

type Waiting<Item, Result> = {
  item: Item;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
};

export type BatcherOptions<Item, Result> = {
  run: (items: Item[]) => Promise<Result[]>;
  itemsMax: number;
  queueMax: number;
  overflow: () => Error;
  /**
   * Whether an error may come from a bad item among good items: then the batch is bisected, and
   * only the bad item is rejected. Default: all items of a failed batch are rejected.
   */
  mayIsolate?: (error: unknown) => boolean;
  /** Bounds a batch by the sum of its items' weights; a heavier item makes a batch of its own. */
  weight?: { of: (item: Item) => number; max: number };
  /**
   * Milliseconds that the first item of a batch waits for other items, for work without hurry.
   * Default: 0.
   */
  gatherMs?: number;
  /**
   * After a batch of at least `size` items, the next one waits `ms` milliseconds, unless as many
   * items wait already: under load, fewer batches cost less than they delay.
   */
  busy?: { size: number; ms: number };
  onBatch?: (size: number, ms: number) => void;
};

/**
 * `run` gets 1 to `itemsMax` items and returns as many results, in the same order. At most
 * `queueMax` items wait; for a further item `add` rejects with the error of `overflow`.
 */
export function createBatcher<Item, Result>(options: BatcherOptions<Item, Result>): Batcher<Item, Result> {
  const queue: Waiting<Item, Result>[] = [];
  // A batch has the work of many calls, so the batch runs in the context of none of these calls.
  const outside = AsyncLocalStorage.snapshot();
  let underWay = 0;
  let isDraining = false;
  let idlers: (() => void)[] = [];

  async function drain(): Promise<void> {
    // Items of the same turn of the event loop join the first batch.
    await Promise.resolve();
    while (queue.length > 0) {
      const waitMs = waitBefore(options, { waiting: queue.length, last: underWay });
      if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
      const batch = takeBatch(queue, options);
      underWay = batch.length;
      await answer(batch, options);
    }
    // In the same turn as the last look at the queue, so that a later item starts a new drain.
    isDraining = false;
    underWay = 0;
    const resolvers = idlers;
    idlers = [];
    for (const resolve of resolvers) resolve();
  }

  return {
    add(item) {
      if (queue.length >= options.queueMax) return Promise.reject(options.overflow());
      return new Promise((resolve, reject) => {
        queue.push({ item, resolve, reject });
        if (isDraining) return;
        isDraining = true;
        outside(() => void drain());
      });
    },
    get depth() {
      return queue.length + underWay;
    },
    idle() {
      if (!isDraining) return Promise.resolve();
      return new Promise((resolve) => {
        idlers.push(resolve);
      });
    },
  };
}

/** Milliseconds that the next batch waits for more items; `last`: the size of the batch before. */
function waitBefore<Item, Result>(
  { itemsMax, gatherMs = 0, busy }: BatcherOptions<Item, Result>,
  { waiting, last }: { waiting: number; last: number },
): number {
  if (waiting >= itemsMax) return 0;
  return busy && last >= busy.size && waiting < last ? busy.ms : gatherMs;
}

/** Takes the next batch off the queue: the oldest items within the bounds, and at least one. */
function takeBatch<Item, Result>(
  queue: Waiting<Item, Result>[],
  { weight, itemsMax }: BatcherOptions<Item, Result>,
): Waiting<Item, Result>[] {
  if (!weight) return queue.splice(0, itemsMax);
  let sum = 0;
  const end = queue.findIndex(({ item }, index) => {
    sum += weight.of(item);
    return index >= itemsMax || (index > 0 && sum > weight.max);
  });
  return queue.splice(0, end === -1 ? queue.length : end);
}

/** Runs a batch, and answers its items after the whole batch has ended. */
async function answer<Item, Result>(
  batch: Waiting<Item, Result>[],
  { run, mayIsolate, onBatch }: BatcherOptions<Item, Result>,
): Promise<void> {
  const startedAt = performance.now();
  const answers: (() => void)[] = [];
  async function runPart(part: readonly Waiting<Item, Result>[]): Promise<[]> {
    const results = await run(part.map((waiting) => waiting.item));
    if (results.length !== part.length) {
      throw new Error(`a batch of ${part.length} was answered with ${results.length} results`);
    }
    results.forEach((result, index) => {
      answers.push(() => part[index]?.resolve(result));
    });
    return [];
  }
  try {
    await bisect(batch, runPart, {
      mayIsolate: (error) => mayIsolate?.(error) ?? false,
      onBad(waiting, error) {
        answers.push(() => waiting.reject(error));
        return [];
      },
    });
  } catch (error) {
    // For an item with an answer already, the rejection has no effect.
    answers.push(...batch.map((waiting) => () => waiting.reject(error)));
  }
  onBatch?.(batch.length, performance.now() - startedAt);
  for await (const slice of slicesOf(answers, answersPerTurn)) {
    for (const give of slice) give();
  }
}

/**
 * Runs all items together. After a refusal that one item may have caused, the halves run one after
 * the other, and so on, until each bad item is alone: `onBad` receives the bad item, and the others
 * are done. The halves do not run at once, because a large batch must not take every connection
 * during the search. Any other error is thrown; the items before it are done.
 *
 * @returns the results of the parts that were done, in the order of the items.
 */
export async function bisect<Item, Result>(
  items: readonly Item[],
  run: (part: readonly Item[]) => Promise<readonly Result[]>,
  options: {
    /** Whether a part that failed so may hold a bad item among good ones. */
    mayIsolate: (error: unknown) => boolean;
    /** Returns results in place of the item's own, if any. */
    onBad: (item: Item, error: unknown) => readonly Result[];
    /** A part of several items has failed; the search begins, or goes on. */
    onSplit?: (part: readonly Item[], error: unknown) => void;
  },
): Promise<Result[]> {
  try {
    return [...(await run(items))];
  } catch (error) {
    if (!options.mayIsolate(error)) throw error;
    const [only] = items;
    if (only === undefined) throw error;
    if (items.length === 1) return [...options.onBad(only, error)];
    options.onSplit?.(items, error);
    const half = Math.ceil(items.length / 2);
    const first = await bisect(items.slice(0, half), run, options);
    return [...first, ...(await bisect(items.slice(half), run, options))];
  }
}
