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
