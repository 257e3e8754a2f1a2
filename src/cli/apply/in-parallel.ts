/** Does it for every item, at most `parallelMax` at once, in their order. The first failure, or the signal, ends it. */
export async function inParallel<Item>(
  items: readonly Item[],
  options: { parallelMax: number; signal: AbortSignal },
  each: (item: Item) => Promise<void>,
): Promise<void> {
  const left = items[Symbol.iterator]();
  let hasFailed = false;
  const lane = async () => {
    // The lanes share one iterator, so that each item is taken once.
    for (let next = left.next(); !next.done && !hasFailed; next = left.next()) {
      options.signal.throwIfAborted();
      try {
        await each(next.value);
      } catch (error) {
        hasFailed = true;
        throw error;
      }
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: options.parallelMax }, lane));
  const failed = ended.find((end) => end.status === "rejected");
  if (failed) throw failed.reason;
}
