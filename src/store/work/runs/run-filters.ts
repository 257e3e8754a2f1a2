import { type RawBuilder, sql } from "kysely";
import { newId } from "../../../values/ids.ts";
import { hasLabel } from "../../people/devices/device-labels.ts";
import type { Db } from "../../pg/database.ts";
import { aheadMsMax } from "./run-claims.ts";

/** Filters of runs that many rows have to be kept from, as lists and bulk operations use them. */

/** Bound in ms on a run's id after its due moment: replicas' clocks and the database's differ. */
const clocksMsMax = 3_600_000;

/**
 * When a run that was due at `since` or later ended at the earliest: after it was due, or it was
 * claimed ahead.
 */
export const endedSince = (since: Date) => new Date(since.getTime() - aheadMsMax);

/**
 * The conditions on runs `r` that were due at `since` or later, and before `until`. Ids and ends
 * say about when a run was due, and keep other days from being read; live runs are few.
 */
export function dueWithin(
  { since, until }: { since?: Date | undefined; until?: Date | undefined },
  { isLive = false }: { isLive?: boolean } = {},
): RawBuilder<unknown>[] {
  const where: RawBuilder<unknown>[] = [];
  if (since) {
    where.push(sql`r.due_at >= ${since}`);
    if (!isLive) where.push(sql`(r.finished_at is null or r.finished_at >= ${endedSince(since)})`);
  }
  if (until) {
    where.push(sql`r.due_at < ${until}`);
    // An id has the time of the slot or of the start, and a run is due then or later; only a run
    // from before the end of a clock's jump has a later id, and is in lists without `until`.
    if (!isLive) where.push(sql`r.id < ${newId(Math.max(0, until.getTime() + clocksMsMax))}`);
  }
  return where;
}

/**
 * The condition on the status of runs or of turns. One status is compared by itself, so that the
 * index of those that did not complete has the page in its order. That none is "completed" is the
 * index's condition and follows from the statuses: said once more, PostgreSQL expects a part of
 * what matches, and reads and sorts all of it.
 */
export function isOneOf(statuses: readonly string[], status = sql`r.status`): RawBuilder<unknown> {
  if (statuses.length === 1) return sql`${status} = ${statuses[0]}`;
  return sql`${status} = any(${statuses as string[]}::text[])`;
}

/** Devices with all of the labels. */
export async function devicesWith(
  db: Db,
  { orgId, labels }: { orgId: string; labels: readonly string[] },
): Promise<string[]> {
  const { rows } = await sql<{ id: string }>`
    select d.id from device d where d.org_id = ${orgId} and ${onDevice(labels)}`.execute(db);
  return rows.map(({ id }) => id);
}

function onDevice(labels: readonly string[]): RawBuilder<unknown> {
  return sql.join(labels.map(hasLabel), sql` and `);
}

/** Whether the run `r` is on a device with all of the labels. */
export function isOnDeviceWith(labels: readonly string[]): RawBuilder<unknown> {
  return sql`exists (select from device d where d.org_id = r.org_id and d.id = r.device_id and ${onDevice(labels)})`;
}
