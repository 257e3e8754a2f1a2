import { z } from "zod";
import { refuse } from "../../errors.ts";
import { isUuid } from "../../ids.ts";

/**
 * Lists page by keyset: a page token holds the sort key of the last row that was shown, so that rows which come or go
 * meanwhile neither repeat nor hide others. To callers it is opaque.
 */
const pageSizeDefault = 50;

/** A part of a page token that is compared with an id column. */
export const idKey = z.string().refine(isUuid);

/**
 * One page: `fetch` is asked for one row more than is shown, after the key of the token. Refuses with
 * `invalid_argument`, field `page_token`, a token that no page of this list had.
 */
export async function page<Row, Key>(
  request: { pageSize: number; pageToken: string },
  options: {
    key: z.ZodType<Key>;
    keyOf: (row: Row) => Key;
    /** Instead of 50. */
    sizeDefault?: number;
    fetch: (after: Key | undefined, limit: number) => Promise<Row[]>;
  },
): Promise<{ rows: Row[]; nextPageToken: string }> {
  const size = request.pageSize || (options.sizeDefault ?? pageSizeDefault);
  const rows = await options.fetch(readToken(request.pageToken, options.key), size + 1);
  if (rows.length <= size) return { rows, nextPageToken: "" };
  rows.length = size;
  const last = options.keyOf(rows[size - 1]!);
  return { rows, nextPageToken: Buffer.from(JSON.stringify(last)).toString("base64url") };
}

function readToken<Key>(token: string, key: z.ZodType<Key>): Key | undefined {
  if (token === "") return undefined;
  try {
    return key.parse(JSON.parse(Buffer.from(token, "base64url").toString("utf8")));
  } catch {
    refuse("invalid_argument", "the page token is not one of this list; begin without one", {
      field: "page_token",
    });
  }
}
