import { create, type DescMessage, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";
import type { Cli } from "../cli.ts";
import { printJson } from "./json.ts";
import { collect } from "./paging.ts";
import { type Column, table } from "./table.ts";

type ItemOf<
  Desc extends DescMessage,
  Field extends keyof MessageShape<Desc>,
> = MessageShape<Desc>[Field] extends readonly (infer Item)[] ? Item : never;

type Awaitable<T> = T | Promise<T>;

/** A list of the API, read page by page. */
export interface List<Desc extends DescMessage, Field extends keyof MessageShape<Desc> & string> {
  /** The answer's schema, and its field with the items. */
  schema: Desc;
  field: Field;
  read(request: {
    pageSize: number;
    pageToken: string;
  }): Promise<MessageShape<Desc> & { nextPageToken: string }>;
  /** Items per request; default: the server's maximum. */
  pageSize?: number;
  /** False for items that are left out, here and in the JSON. */
  isShown?(item: ItemOf<Desc, Field>): boolean;
  /** A sentence for people in place of an empty table. Left out: the table's header. */
  none?: string;
  columns:
    | Column<ItemOf<Desc, Field>>[]
    | ((items: ItemOf<Desc, Field>[]) => Awaitable<Column<ItemOf<Desc, Field>>[]>);
  /** Prints the items in place of the table. */
  show?: ((items: ItemOf<Desc, Field>[]) => void) | undefined;
  /** Notes below the table. */
  notes?(items: ItemOf<Desc, Field>[]): string[];
}

/**
 * Prints up to `limit` items of a list: as the API's answer with `json`, otherwise as a table, with
 * a note if there are more.
 */
export async function printList<Desc extends DescMessage, Field extends keyof MessageShape<Desc> & string>(
  cli: Cli,
  { json, limit }: { json?: boolean; limit: number },
  list: List<Desc, Field>,
): Promise<void> {
  type Item = ItemOf<Desc, Field>;
  const page = await collect(
    limit,
    async (request) => {
      const answer = await list.read(request);
      return { items: answer[list.field] as Item[], nextPageToken: answer.nextPageToken };
    },
    list.pageSize,
  );
  const items = list.isShown === undefined ? page.items : page.items.filter(list.isShown);
  if (json) {
    // TypeScript cannot see that the schema has the field, which `Field` demands.
    const answer = { [list.field]: items, nextPageToken: page.nextPageToken } as unknown;
    return printJson(cli, list.schema, create(list.schema, answer as MessageInitShape<Desc>));
  }
  if (items.length === 0 && list.none !== undefined) return cli.note(list.none);
  if (list.show !== undefined) return list.show(items);
  const columns = typeof list.columns === "function" ? await list.columns(items) : list.columns;
  for (const line of table(items, columns, cli.columns)) cli.out(line);
  for (const note of list.notes?.(items) ?? []) cli.note(note);
  if (page.hasMore) cli.note(`there are more; --limit ${limit * 2} shows them`);
}
