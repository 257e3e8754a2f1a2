import { z } from "zod";
import { refuse } from "../../errors.ts";
import { isUuid } from "../../values/ids.ts";

/**
 * Lists page by keyset: a page token holds the sort key of the last row shown, so that concurrent
 * inserts and deletes neither repeat nor hide other rows. The token is opaque to callers.
 */
const pageSizeDefault = 50;

/** A part of a page token compared with an id column. */
export const idKey = z.string().refine(isUuid);

/** A part compared with a text column; PostgreSQL's texts have no NUL. */
export const textKey = z.string().refine((text) => text.isWellFormed() && !text.includes("\0"));

/** A part compared with a moment of the database: whole microseconds since 1970. */
export const momentKey = z.number().int().nonnegative();

/**
 * One page: `fetch` reads one row more than the page size, after the key of the token. Refuses with
 * `invalid_argument`, field `page_token`, a token of another list.
 */
export async function page<Row, Key extends [unknown, ...unknown[]] | object>(
  request: { $typeName: string; pageSize: number; pageToken: string },
  options: {
    key: z.ZodType<Key>;
    keyOf: (row: Row) => Key;
    /** Instead of 50. */
    sizeDefault?: number;
    fetch: (after: Key | undefined, limit: number) => Promise<Row[]>;
  },
): Promise<{ rows: Row[]; nextPageToken: string }> {
  const size = request.pageSize || (options.sizeDefault ?? pageSizeDefault);
  const rows = await options.fetch(readToken(request, options.key), size + 1);
  const last = rows[size - 1];
  if (last === undefined || rows.length <= size) return { rows, nextPageToken: "" };
  rows.length = size;
  const token = JSON.stringify([listOf(request), options.keyOf(last)]);
  return { rows, nextPageToken: Buffer.from(token).toString("base64url") };
}

/** The list's name in a page token: "pinion.v1.ListRunsRequest" is "ListRuns". */
function listOf(request: { $typeName: string }): string {
  return request.$typeName.replace(/^.*\.|Request$/g, "");
}

function readToken<Key>(
  request: { $typeName: string; pageToken: string },
  key: z.ZodType<Key>,
): Key | undefined {
  const token = request.pageToken;
  if (token === "") return undefined;
  try {
    const parsed: unknown = JSON.parse(Buffer.from(token, "base64url").toString("utf8"));
    return z.tuple([z.literal(listOf(request)), key]).parse(parsed)[1];
  } catch {
    refuse("invalid_argument", "the page token is not one of this list; begin without one", {
      field: "page_token",
    });
  }
}
