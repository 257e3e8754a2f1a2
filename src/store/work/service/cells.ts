/** Cells: the name of the database's own cell (docs/scaling.md). */
import { sql } from "kysely";
import { Refusal } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";

/** The name of the database's cell; "" for none. */
async function findCell(db: Db): Promise<string> {
  const { rows } = await sql<{ name: string }>`select name from cell`.execute(db);
  return rows[0]?.name ?? "";
}

/**
 * Gives the database the configured name at the first start. Refuses with `failed_precondition` a
 * replica of another cell: its tokens would name a cell in which they are unknown.
 */
export async function requireCell(db: Db, configured: string): Promise<void> {
  if (configured)
    await sql`insert into cell (name) values (${configured}) on conflict do nothing`.execute(db);
  const name = await findCell(db);
  if (name === configured) return;
  throw new Refusal(
    "failed_precondition",
    `The database belongs to the cell "${name}", and PINION_CELL is ${configured ? `"${configured}"` : "not set"}: ` +
      `set PINION_CELL=${name}, or check DATABASE_URL. To rename a cell, stop its replicas and run: ` +
      "update cell set name = 'the new name';",
  );
}
