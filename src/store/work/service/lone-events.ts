import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { inCompany } from "../../pg/round-trips.ts";
import { ofFew } from "../../pg/values/unnest.ts";

/**
 * The event of a run that comes alone, as a short statement that is sent with the commit. The
 * statement for any number of rows takes PostgreSQL twice as long, most of it to set itself up.
 */
export function appendAlone(tx: Db, row: LoneRow): Promise<void> {
  return row.isPacked ? insertPacked(tx, row) : insertPlain(tx, row);
}

/**
 * The org's lock. The row's number is drawn and its time is read after this part of the statement
 * has its only row: `offset` keeps PostgreSQL from merging the part into the rest.
 */
const lockedFor = (orgId: string) =>
  sql`(select pg_advisory_xact_lock(${orderOf(sql`${orgId}::text`)}) offset 0) l`;

/** The key of the lock under which an org's events get their numbers, in the order of commits. */
export const orderOf = (orgId: RawBuilder<unknown>) => sql`hashtextextended('event ' || ${orgId}, 0)`;

type LoneRow = {
  event: { orgId: string; kind: string; actor: string } & {
    [subject in "runId" | "watcherId" | "deviceId"]?: string | null;
  };
  data: string;
  source: string | null;
  /** In the form of a packed row, with the event as its only member. */
  isPacked: boolean;
};

async function insertPlain(tx: Db, { event, data, source }: LoneRow): Promise<void> {
  const { orgId, kind, actor, runId = null, watcherId = null, deviceId = null } = event;
  await sql`${inCompany}${ofFew}
    insert into event_row (org_id, at, kind, actor, run_id, watcher_id, device_id, data, source)
    select ${orgId}, clock_timestamp(), ${kind}, ${actor}, ${runId}::uuid, ${watcherId}::uuid, ${deviceId}::uuid,
      ${data}::jsonb, ${source}::jsonb
    from ${lockedFor(orgId)}`.execute(tx);
}

async function insertPacked(tx: Db, { event, data, source }: LoneRow): Promise<void> {
  const { orgId, kind, actor, runId = null, watcherId = null, deviceId = null } = event;
  await sql`${inCompany}${ofFew}
    insert into event_row (org_id, seq, at, kind, actor, data, source, seqs, run_ids, watcher_ids, device_ids)
    overriding system value
    select ${orgId}, n.seq, clock_timestamp(), ${kind}, ${actor}, ${data}::jsonb, ${source}::jsonb, array[n.seq],
      array[${runId}::uuid], array[${watcherId}::uuid], array[${deviceId}::uuid]
    -- Not merged, which would draw a number for each use.
    from (select nextval('event_seq_seq') as seq from ${lockedFor(orgId)} offset 0) n`.execute(tx);
}
