import { sql } from "kysely";
import type { DatabaseNumbers } from "../../telemetry/gauges.ts";
import { type Db, transaction } from "./database.ts";
import { onlyRow } from "./values/only-row.ts";

/** Milliseconds. Slower numbers are not worth their cost; the next scrape tries again. */
const statementTimeoutMs = 2_000;

/** The numbers of the whole database for operators, across orgs, in one short transaction. */
export function readNumbers(db: Db): Promise<DatabaseNumbers> {
  return transaction(db, async (tx) => {
    await sql`select set_config('statement_timeout', ${`${statementTimeoutMs}ms`}, true)`.execute(tx);
    // Live runs only: ended runs are in another table.
    const { rows } = await sql<{
      pending: number;
      claimed: number;
      running: number;
      connected: number;
      away: number;
      none: number;
    }>`
      select count(*) filter (where r.status = 'pending')::int as pending,
        count(*) filter (where r.status = 'claimed')::int as claimed,
        count(*) filter (where r.status = 'running')::int as running,
        coalesce(max(w.ms) filter (where p.device_id is not null), 0)::float8 as connected,
        coalesce(max(w.ms) filter (where r.device_id is not null and p.device_id is null), 0)::float8 as away,
        coalesce(max(w.ms) filter (where r.device_id is null), 0)::float8 as none
      from run r
        left join presence p on p.org_id = r.org_id and p.device_id = r.device_id and p.disconnected_at is null
        left join lateral (
          select extract(epoch from now() - greatest(r.due_at, r.not_before)) * 1000 as ms
          where r.status = 'pending' and greatest(r.due_at, r.not_before) <= now()
        ) w on true
    `.execute(tx);
    const activity = await sql<{ transaction: number; snapshot: number }>`
      select coalesce(max(extract(epoch from clock_timestamp() - xact_start)) * 1000, 0)::float8 as transaction,
        coalesce(max(age(backend_xmin)), 0)::int as snapshot
      from pg_stat_activity
      where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'
    `.execute(tx);
    const { pending, claimed, running, connected, away, none } = onlyRow(rows);
    return {
      activeRuns: { pending, claimed, running },
      oldestPendingMs: { connected, away, none },
      oldestTransactionMs: onlyRow(activity.rows).transaction,
      oldestSnapshotAge: onlyRow(activity.rows).snapshot,
    };
  });
}
