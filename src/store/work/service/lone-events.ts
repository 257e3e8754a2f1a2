import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { inCompany } from "../../pg/round-trips.ts";
import { ofFew } from "../../pg/values/unnest.ts";

/**
 * The event of a run that comes alone, as two short statements that are sent with the commit: the
 * org's lock, and the row with a number drawn and a time read under the lock. The statement for any
 * number of rows takes PostgreSQL twice as long, most of it to set itself up.
 */
export async function appendAlone(tx: Db, row: LoneRow): Promise<void> {
  await sql`${inCompany}${ofFew}
    select pg_advisory_xact_lock(${orderOf(sql`${row.event.orgId}::text`)})`.execute(tx);
  await (row.isPacked ? insertPacked(tx, row) : insertPlain(tx, row));
}

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
    values (${orgId}, clock_timestamp(), ${kind}, ${actor}, ${runId}::uuid, ${watcherId}::uuid, ${deviceId}::uuid,
      ${data}::jsonb, ${source}::jsonb)`.execute(tx);
}

async function insertPacked(tx: Db, { event, data, source }: LoneRow): Promise<void> {
  const { orgId, kind, actor, runId = null, watcherId = null, deviceId = null } = event;
  await sql`${inCompany}${ofFew}
    insert into event_row (org_id, seq, at, kind, actor, data, source, seqs, run_ids, watcher_ids, device_ids)
    overriding system value
    select ${orgId}, n.seq, clock_timestamp(), ${kind}, ${actor}, ${data}::jsonb, ${source}::jsonb, array[n.seq],
      array[${runId}::uuid], array[${watcherId}::uuid], array[${deviceId}::uuid]
    -- Not merged, which would draw a number for each use.
    from (select nextval('event_seq_seq') as seq offset 0) n`.execute(tx);
}
