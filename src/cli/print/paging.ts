import { InvalidArgumentError } from "commander";

type Page<Item> = { items: Item[]; nextPageToken: string };

/** Maximum items of a page, set by the server. */
const pageSizeMax = 500;
/** Maximum items read for finding a name. */
export const lookupItemsMax = 10_000;

/** Reads up to `limit` items, page by page; `hasMore` is true if there are more. */
export async function collect<Item>(
  limit: number,
  read: (request: { pageSize: number; pageToken: string }) => Promise<Page<Item>>,
  pageSize: number = pageSizeMax,
): Promise<{ items: Item[]; hasMore: boolean; nextPageToken: string }> {
  const items: Item[] = [];
  let pageToken = "";
  do {
    const page = await read({ pageSize: Math.min(pageSize, limit - items.length), pageToken });
    items.push(...page.items);
    pageToken = page.nextPageToken;
  } while (pageToken !== "" && items.length < limit);
  return { items, hasMore: pageToken !== "", nextPageToken: pageToken };
}

/** A parser for an option's integer from `min` to `max`. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (!/^\d+$/.test(text.trim()) || value < min || value > max) {
      throw new InvalidArgumentError(`It takes a whole number from ${min} to ${max}.`);
    }
    return value;
  };
}

/** Collects the values of an option given several times or with commas. */
export function list(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), ...text.split(",").map((part) => part.trim())].filter((part) => part !== "");
}
