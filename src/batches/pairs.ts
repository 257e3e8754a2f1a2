/** Each item with its result; the results stand in the items' order, one for each item. */
export function pairsOf<Item, Result>(
  items: readonly Item[],
  results: readonly Result[],
): [item: Item, result: Result][] {
  if (results.length !== items.length) {
    throw new Error(`${results.length} results for ${items.length} items`);
  }
  return items.map((item, index) => [item, results[index] as Result]);
}
