import { AsyncLocalStorage } from "node:async_hooks";

/**
 * Natural batching: while one batch is under way, what arrives is collected; the next batch takes it all, up to a
 * bound. A single item pays one round trip, ten thousand pay a few.
 */
export type Batcher<Item, Result> = {
  /** Resolves with the item's result once its batch is done; rejects with the batch's error, or if the queue is full. */
  add(item: Item): Promise<Result>;
  /** Items that wait or are under way. */
  readonly depth: number;
  /** Resolves when everything that was added has been answered. */
  idle(): Promise<void>;
};

type Waiting<Item, Result> = {
  item: Item;
  resolve: (result: Result) => void;
  reject: (error: unknown) => void;
};

/**
 * `run` gets 1 to `itemsMax` items and answers as many results, in the same order. `queueMax` bounds what may wait;
 * beyond it `add` rejects with what `overflow` makes.
 */
export function createBatcher<Item, Result>(options: {
  run: (items: Item[]) => Promise<Result[]>;
  itemsMax: number;
  queueMax: number;
  overflow: () => Error;
  /** Whether a batch that failed so is run item by item, so that a bad one fails alone. Default: it fails as a whole. */
  mayIsolate?: (error: unknown) => boolean;
  /** How long the first item of a batch waits for others, in milliseconds: for what is in no hurry. Default: not at all. */
  gatherMs?: number;
  onBatch?: (size: number, ms: number) => void;
}): Batcher<Item, Result> {
  const queue: Waiting<Item, Result>[] = [];
  // A batch is many calls' work: it is done as part of none of them, whoever happened to begin it.
  const outside = AsyncLocalStorage.snapshot();
  let underWay = 0;
  let isDraining = false;
  let idlers: (() => void)[] = [];

  async function answer(batch: Waiting<Item, Result>[]): Promise<void> {
    try {
      const results = await options.run(batch.map((waiting) => waiting.item));
      if (results.length !== batch.length) {
        throw new Error(`a batch of ${batch.length} was answered with ${results.length} results`);
      }
      batch.forEach((waiting, index) => {
        waiting.resolve(results[index]!);
      });
    } catch (error) {
      if (batch.length > 1 && options.mayIsolate?.(error)) {
        for (const waiting of batch) await answer([waiting]);
      } else {
        for (const waiting of batch) waiting.reject(error);
      }
    }
  }

  async function drain(): Promise<void> {
    // Let the items of the same turn of the event loop join the first batch.
    await Promise.resolve();
    while (queue.length > 0) {
      if (options.gatherMs && queue.length < options.itemsMax) {
        await new Promise((resolve) => setTimeout(resolve, options.gatherMs));
      }
      const batch = queue.splice(0, options.itemsMax);
      underWay = batch.length;
      const startedAt = performance.now();
      await answer(batch);
      options.onBatch?.(batch.length, performance.now() - startedAt);
    }
    // In the same turn as the last look at the queue: an item that comes later starts anew.
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
