/**
 * Row-level security for requests (migrations/0001_foundations.sql).
 *
 * Statements on a `tenantDb` within {@link withinOrg} run as the role `pinion_server`, for which
 * PostgreSQL shows and accepts only the org's rows, even if a statement lacks the condition.
 * Outside of {@link withinOrg} a `tenantDb` refuses to connect. Role and org are set `local` to a
 * transaction, and a single statement gets a transaction of its own, in one round trip
 * (round-trips.ts): so no setting stays on a connection, and a pooler in transaction mode may be in
 * between.
 *
 * Work across orgs uses a `db`: the scheduler's passes, the sessions' batches, the guard's lookups,
 * and the few calls that begin before the org is known (docs/security.md lists them).
 */

import { AsyncLocalStorage } from "node:async_hooks";
import { type Kysely, sql } from "kysely";
import { Refusal } from "../../errors.ts";
import type { Statement } from "./joined.ts";
import type { Schema } from "./schema/schema.ts";
import { onlyRow } from "./values/only-row.ts";

const currentOrg = new AsyncLocalStorage<string>();

/** Calls `fn`; `fn` and its awaited work are confined to the org on every `tenantDb`. */
export function withinOrg<T>(orgId: string, fn: () => T): T {
  return currentOrg.run(orgId, fn);
}

/**
 * What confines a transaction, or a single statement, to the org of the call. Refuses a caller
 * outside of a tenant's call.
 */
export function confinement(): Statement {
  const orgId = currentOrg.getStore();
  if (orgId === undefined) throw new Error("a tenant's data was asked for outside of a tenant's call");
  return { text: confining, values: [orgId] };
}

const confining =
  "select /* few */ set_config('role', 'pinion_server', true), set_config('pinion.org', $1, true)";

/**
 * Refuses to start if the database would not confine requests, or would not let the scheduler work;
 * gives advice.
 */
export async function requireRoles(db: Kysely<Schema>): Promise<void> {
  const { rows } = await sql<{ user: string; may_confine: boolean; is_confined: boolean; may_pass: boolean }>`
    select current_user as "user",
      pg_has_role(current_user, 'pinion_server', 'member') as may_confine,
      exists (select from pg_roles r
        where r.rolname = 'pinion_server' and not r.rolsuper and not r.rolbypassrls
          and not pg_has_role('pinion_server', 'pinion_scheduler', 'member')) as is_confined,
      pg_has_role(current_user, 'pinion_scheduler', 'usage')
        or (select rolbypassrls from pg_roles where rolname = current_user) as may_pass`.execute(db);
  const { user, may_confine, is_confined, may_pass } = onlyRow(rows);
  if (!is_confined) {
    throw new Refusal(
      "failed_precondition",
      "The role pinion_server is a superuser, bypasses row-level security, or is a member of pinion_scheduler: requests " +
        "would see every org's rows. Have an administrator run: alter role pinion_server nosuperuser nobypassrls; " +
        "revoke pinion_scheduler from pinion_server;",
    );
  }
  if (!may_confine || !may_pass) {
    throw new Refusal(
      "failed_precondition",
      `The database user "${user}" lacks Pinion's roles. Have an administrator run: ` +
        `grant pinion_server, pinion_scheduler to "${user}";`,
    );
  }
}
