/**
 * Calls `each` for every item in order, at most `parallelMax` at once. The first failure, or the
 * signal, ends the loop.
 */
export async function inParallel<Item>(
  items: readonly Item[],
  options: { parallelMax: number; signal: AbortSignal },
  each: (item: Item) => Promise<void>,
): Promise<void> {
  const left = items[Symbol.iterator]();
  let hasFailed = false;
  const lane = async () => {
    // The lanes share one iterator, so each item is taken once.
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
