/** What people may know about a secret without its value: how often it was set, and when last. */
import { type RawBuilder, sql } from "kysely";

/**
 * The column `secret_marks` after an edit from the secrets `before` to `after`: a secret with
 * another ciphertext gets the next version and the present time, a removed secret loses its mark.
 * `column` holds the marks so far; a new row has none.
 */
export function marksAfter(
  before: Readonly<Record<string, string>>,
  after: Readonly<Record<string, string>>,
  column: RawBuilder<unknown> = sql`'{}'::jsonb`,
): RawBuilder<string> {
  const names = Object.keys(after);
  const changed = names.filter((name) => before[name] !== after[name]);
  return sql<string>`(
    select coalesce(jsonb_object_agg(name, case when name = any(${changed}::text[])
      then jsonb_build_object('version', coalesce((${column} -> name ->> 'version')::integer, 0) + 1, 'set_at', now())
      else ${column} -> name end) filter (where name = any(${changed}::text[]) or ${column} ? name), '{}')
    from unnest(${names}::text[]) name)`;
}
