import { sql } from "kysely";
import type { Db } from "./database.ts";

/** The database's clock, by which due times and liveness are judged (R7). */
export async function now(db: Db): Promise<Date> {
  const { rows } = await sql<{ at: Date }>`select clock_timestamp() as at`.execute(db);
  return rows[0]!.at;
}
