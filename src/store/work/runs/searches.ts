import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { onlyRow } from "../../pg/values/only-row.ts";

/**
 * Searches by people. Results have no word index: the index would cost every run some time, and
 * searches nearly always concern new results, so the newest results are read one by one.
 */

/** As documented in the .proto. */
const resultsSearchedMax = 1_000;
const charactersMax = 16_000;
const runsByIdMax = 20;
const runsByTextMax = 50;

/**
 * Ids of runs that begin with the given hexadecimal digits, the newest first; dashes are ignored.
 */
export async function runsByBeginning(
  db: Db,
  { orgId, beginning }: { orgId: string; beginning: string },
): Promise<string[]> {
  const letters = beginning.replaceAll("-", "").toLowerCase();
  const from = letters.padEnd(32, "0");
  const to = letters.padEnd(32, "f");
  const { rows } = await sql<{ id: string }>`
    select id from run_all
    where org_id = ${orgId} and id >= ${from}::uuid and id <= ${to}::uuid
    order by id desc limit ${runsByIdMax}`.execute(db);
  return rows.map(({ id }) => id);
}

/**
 * Ids of runs that end with the given hexadecimal digits, as the page shows them, among the newest
 * 10,000.
 */
export async function runsByEnd(db: Db, { orgId, end }: { orgId: string; end: string }): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    select id from (select id from run_all where org_id = ${orgId} order by id desc limit 10000) newest
    where right(id::text, ${end.length}) = ${end.toLowerCase()} order by id desc limit ${runsByIdMax}`.execute(
    db,
  );
  return rows.map(({ id }) => id);
}

export type ResultHit = { runId: string; deviceId: string | null; excerpt: string };

/** The newest results with all of the words, and how many were looked through. */
export async function results(
  db: Db,
  { orgId, query }: { orgId: string; query: string },
): Promise<{ hits: ResultHit[]; searched: number }> {
  const { rows } = await sql<ResultHit & { searched: number }>`
    with newest as materialized (
      select id, run_id, left(coalesce(nullif(extracted_data->>'result', ''), extracted_data->>'output', ''), ${charactersMax}) as text
      from "window" where org_id = ${orgId} order by id desc limit ${resultsSearchedMax}
    ),
    asked as (select websearch_to_tsquery('simple', ${query}) as query),
    found as (
      select n.id, n.run_id, n.text from newest n, asked a
      where to_tsvector('simple', n.text) @@ a.query
      order by n.id desc limit ${runsByTextMax}
    )
    select f.run_id as "runId", r.device_id as "deviceId", (select count(*) from newest)::int as searched,
      ts_headline('simple', f.text, a.query, 'MaxWords=24, MinWords=12, StartSel="", StopSel=""') as excerpt
    from found f cross join asked a left join run_all r on r.org_id = ${orgId} and r.id = f.run_id
    order by f.id desc`.execute(db);
  if (rows.length > 0) return { hits: rows, searched: onlyRow(rows).searched };
  const count = await sql<{ searched: number }>`
    select count(*)::int as searched from (
      select from "window" where org_id = ${orgId} limit ${resultsSearchedMax}) newest`.execute(db);
  return { hits: [], searched: onlyRow(count.rows).searched };
}
