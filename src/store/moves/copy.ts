/**
 * Copies an org's rows of one table to another database, and compares the copies by digests. Rows
 * travel as texts of the table's row type, so no value passes through a type of JavaScript.
 */

import pg from "pg";
import { onlyRow } from "../pg/values/only-row.ts";
import type { OrgTable } from "./tables.ts";

/** Rows per batch at the beginning, at most, and the bytes that a batch should have. */
const rowsAtFirst = 50;
const rowsMax = 5_000;
const batchBytes = 1_000_000;

export type Digest = { rows: number; digest: string };

/** Ids of people by their ids at the source, for people who have another id at the target. */
export type People = ReadonlyMap<string, string>;

/** Settings under which both databases write the same text for the same value. */
const textSettings =
  "set timezone = 'UTC'; set datestyle = 'ISO, YMD'; set intervalstyle = 'postgres'; set extra_float_digits = 1; set bytea_output = 'hex'";

/** Prepares a connection for {@link copyTable}: no limit of time, and the same texts everywhere. */
export async function prepareCopy(client: pg.ClientBase): Promise<void> {
  await client.query(
    `${textSettings}; set statement_timeout = 0; set idle_in_transaction_session_timeout = 0`,
  );
}

/**
 * Replaces the org's rows of a table at the target, in one transaction together with `note`. Throws
 * if the copy differs from the source.
 */
export async function copyTable(
  { source, target }: { source: pg.ClientBase; target: pg.ClientBase },
  table: OrgTable,
  {
    orgId,
    people,
    note,
    onRows,
  }: {
    orgId: string;
    people: People;
    note: (copied: Digest) => Promise<void>;
    /** After each batch: the rows so far. */
    onRows: (rows: number) => Promise<unknown>;
  },
): Promise<Digest> {
  const name = pg.escapeIdentifier(table.name);
  const columns = table.columns
    .filter(({ isGenerated }) => !isGenerated)
    .map((column) => pg.escapeIdentifier(column.name))
    .join(", ");
  return inTransaction(target, async () => {
    await target.query(`delete from ${name} where ${table.key} = $1`, [orgId]);
    let written = 0;
    for await (const rows of batchesOf(source, table, { orgId, people })) {
      // overriding: an identity keeps the value that cursors and devices know.
      await target.query(
        `insert into ${name} (${columns}) overriding system value select ${columns} from unnest($1::text[]::${name}[])`,
        [rows],
      );
      written += rows.length;
      await onRows(written);
    }
    const none: People = new Map();
    const [before, after] = await Promise.all([
      digestOf(source, table, { orgId, people }),
      digestOf(target, table, { orgId, people: none }),
    ]);
    if (before.rows !== after.rows || before.digest !== after.digest) {
      throw new Error(
        `the copy of the table ${table.name} differs from its source: ${after.rows} rows for ${before.rows}`,
      );
    }
    await note(after);
    return after;
  });
}

/** The number of the org's rows and a digest of them in any order. */
export async function digestOf(
  client: pg.ClientBase,
  table: OrgTable,
  { orgId, people }: { orgId: string; people: People },
): Promise<Digest> {
  const { rows } = await client.query<{ rows: string; digest: string }>(
    `select count(*)::text as rows,
      coalesce(sum(('x' || left(h, 16))::bit(64)::bigint::numeric), 0)::text || ':'
        || coalesce(sum(('x' || right(h, 16))::bit(64)::bigint::numeric), 0)::text as digest
    from (select md5(${rowText(table, people)}) as h from ${pg.escapeIdentifier(table.name)} t where t.${table.key} = $1) x`,
    [orgId],
  );
  return { rows: Number(onlyRow(rows).rows), digest: onlyRow(rows).digest };
}

async function* batchesOf(
  source: pg.ClientBase,
  table: OrgTable,
  { orgId, people }: { orgId: string; people: People },
): AsyncGenerator<string[]> {
  await source.query("begin read only");
  try {
    await source.query(
      `declare moved no scroll cursor for
        select ${rowText(table, people)} as line from ${pg.escapeIdentifier(table.name)} t where t.${table.key} = ${pg.escapeLiteral(orgId)}`,
    );
    for (let count = rowsAtFirst; ; ) {
      const { rows } = await source.query<{ line: string }>(`fetch ${count} from moved`);
      if (rows.length === 0) break;
      const lines = rows.map(({ line }) => line);
      yield lines;
      const bytes = lines.reduce((sum, line) => sum + line.length, 0) / lines.length;
      count = Math.max(1, Math.min(rowsMax, Math.floor(batchBytes / bytes)));
    }
  } finally {
    await source.query("rollback").catch(() => {});
  }
}

/** The row as the text of the table's row type, with the ids of people as the target has them. */
function rowText(table: OrgTable, people: People): string {
  if (people.size === 0) return "t::text";
  const values = table.columns.map(({ name, isUser, isActor }) => {
    const column = `t.${pg.escapeIdentifier(name)}`;
    if (isUser) return caseOf(column, people, (id) => `${pg.escapeLiteral(id)}::uuid`);
    if (isActor) return caseOf(column, people, (id) => pg.escapeLiteral(`user:${id}`));
    return column;
  });
  return `row(${values.join(", ")})::text`;
}

function caseOf(column: string, people: People, write: (id: string) => string): string {
  const cases = [...people].map(([from, to]) => `when ${write(from)} then ${write(to)}`);
  return `case ${column} ${cases.join(" ")} else ${column} end`;
}

/** Calls `fn` in a transaction; the connection is of the move alone. */
export async function inTransaction<T>(client: pg.ClientBase, fn: () => Promise<T>): Promise<T> {
  await client.query("begin");
  try {
    const result = await fn();
    await client.query("commit");
    return result;
  } catch (error) {
    await client.query("rollback").catch(() => {});
    throw error;
  }
}
