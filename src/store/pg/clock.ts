import { sql } from "kysely";
import type { Db } from "./database.ts";
import { onlyRow } from "./values/only-row.ts";

/** The time by the database's clock, the reference for due times and liveness (R7). */
export async function now(db: Db): Promise<Date> {
  const { rows } = await sql<{ at: Date }>`select clock_timestamp() as at`.execute(db);
  return onlyRow(rows).at;
}

/** The time by the database's clock in milliseconds since 1970, with microseconds as decimals. */
export async function nowMs(db: Db): Promise<number> {
  const { rows } = await sql<{ ms: number }>`
    select (extract(epoch from clock_timestamp()) * 1000)::float8 as ms`.execute(db);
  return onlyRow(rows).ms;
}
