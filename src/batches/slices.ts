import { setImmediate as nextTurn } from "node:timers/promises";

/**
 * The items in slices of at most `size`, with a turn of the event loop between two of them, in
 * which the process serves others. The first slice comes at once.
 */
export async function* slicesOf<Item>(
  items: readonly Item[],
  size: number,
): AsyncGenerator<readonly Item[], void, void> {
  for (let at = 0; at < items.length; at += size) {
    if (at > 0) await nextTurn();
    yield items.slice(at, at + size);
  }
}
