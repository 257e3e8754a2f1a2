/** The people of an org that moves: their rows, and how they sign in. */

import pg from "pg";
import { onlyRow } from "../pg/values/only-row.ts";
import type { People } from "./copy.ts";
import type { OrgTable } from "./tables.ts";

type Person = { id: string; name: string; email: string | null; created_at: string };

/**
 * Adds the org's people to the target. A person with an email address known there is the same
 * person, and keeps the id there; returns the ids that differ.
 */
export async function copyPeople(
  { source, target }: { source: pg.ClientBase; target: pg.ClientBase },
  tables: readonly OrgTable[],
  { orgId }: { orgId: string },
): Promise<People> {
  const named = tables.flatMap(({ name, key, columns }) =>
    columns
      .filter(({ isUser }) => isUser)
      .map(
        (column) =>
          `select ${pg.escapeIdentifier(column.name)} from ${pg.escapeIdentifier(name)} where ${key} = $1`,
      ),
  );
  const { rows: people } = await source.query<Person>(
    `select id, name, email, created_at::text from "user" where id in (${named.join(" union ")})`,
    [orgId],
  );
  const others = new Map<string, string>();
  for (const { id, name, email, created_at } of people) {
    await target.query(
      `insert into "user" (id, name, email, created_at) values ($1, $2, $3, $4) on conflict do nothing`,
      [id, name, email, created_at],
    );
    const { rows } = await target.query<{ id: string }>(
      `select id from "user" where id = $1 or email = $2 order by email = $2 desc nulls last limit 1`,
      [id, email],
    );
    if (onlyRow(rows).id !== id) others.set(id, onlyRow(rows).id);
  }
  const { rows: identities } = await source.query<Record<"issuer" | "subject" | "user_id", string>>(
    "select issuer, subject, user_id from user_identity where user_id = any($1)",
    [people.map(({ id }) => id)],
  );
  for (const { issuer, subject, user_id: id } of identities) {
    await target.query(
      "insert into user_identity (issuer, subject, user_id) values ($1, $2, $3) on conflict do nothing",
      [issuer, subject, others.get(id) ?? id],
    );
  }
  return others;
}
