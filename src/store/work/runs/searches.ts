import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";

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
  // Each part in the order of its index: the view "window" would sort all results of the org.
  const newest = sql`(
      select id, device_id, left(coalesce(nullif(answer->>'result', ''), output), ${charactersMax}) as text
      from run_finished where org_id = ${orgId} and output is not null order by id desc limit ${resultsSearchedMax}
    ) union all (
      select id, null, left(coalesce(nullif(extracted_data->>'result', ''), extracted_data->>'output', ''), ${charactersMax})
      from window_kept where org_id = ${orgId} order by id desc limit ${resultsSearchedMax}
    ) order by id desc limit ${resultsSearchedMax}`;
  const { rows } = await sql<{ searched: number; runId: string | null } & Omit<ResultHit, "runId">>`
    with newest as materialized (${newest}),
    asked as (select websearch_to_tsquery('simple', ${query}) as query),
    found as (
      select n.id, n.device_id, n.text from newest n, asked a
      where to_tsvector('simple', n.text) @@ a.query
      order by n.id desc limit ${runsByTextMax}
    )
    select c.searched, f.id as "runId", f.device_id as "deviceId",
      ts_headline('simple', f.text, a.query, 'MaxWords=24, MinWords=12, StartSel="", StopSel=""') as excerpt
    from (select count(*)::int as searched from newest) c cross join asked a left join found f on true
    order by f.id desc`.execute(db);
  const hits = rows.flatMap(({ runId, deviceId, excerpt }) =>
    runId === null ? [] : { runId, deviceId, excerpt },
  );
  return { hits, searched: rows[0]?.searched ?? 0 };
}
