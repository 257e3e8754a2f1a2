import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { onlyRow } from "../../pg/values/only-row.ts";
import type { WatcherName } from "./schedules.ts";

/** Positions of schedules to be checked, and moved back, after a jump of the clock. */

/** The facts for checking a schedule's position. */
export type PlannedWatcher = WatcherName & {
  schedule: string;
  timeZone: string;
  nextSlotAt: Date;
  /** The database's clock. */
  now: Date;
};

/**
 * Watchers whose next slot is more than `aheadMs` milliseconds away, by name, at most `limit`.
 * Locks nothing.
 */
export async function listPlanned(
  db: Db,
  options: { after?: WatcherName | undefined; aheadMs: number; limit: number },
): Promise<PlannedWatcher[]> {
  const { after } = options;
  // Each watcher is looked up (offset): joined in the order of their index, all watchers before
  // `after` would be read each time.
  const { rows } = await sql<PlannedWatcher>`
    select s.org_id as "orgId", s.watcher_id as "watcherId", w.schedule, w.time_zone as "timeZone",
      s.next_slot_at as "nextSlotAt", clock_timestamp() as now
    from schedule_position s cross join lateral (
      select schedule, time_zone from watcher
      where org_id = s.org_id and id = s.watcher_id and schedule is not null offset 0
    ) w
    where s.next_slot_at > now() + ${options.aheadMs} * interval '1 ms'
      ${after ? sql`and (s.org_id, s.watcher_id) > (${after.orgId}, ${after.watcherId}::uuid)` : sql``}
    order by s.org_id, s.watcher_id
    limit ${options.limit}
  `.execute(db);
  return rows;
}

/** A move of a schedule back to a slot. */
type MoveBack = WatcherName & { nextSlotAt: Date };

/** The skipped runs of the slots in between, which are in the future again. */
const skippedSince = ({ orgId, watcherId, nextSlotAt }: MoveBack) => sql`
  org_id = ${orgId} and watcher_id = ${watcherId} and scheduled_for >= ${nextSlotAt}
    and status = 'skipped' and id >= ${firstIdOf(nextSlotAt)}`;

/** Locks the rows that a move deletes: before the watcher, as a late result does. */
export async function lockSkipped(tx: Db, move: MoveBack): Promise<void> {
  await sql`select from run_finished where ${skippedSince(move)} order by id for update`.execute(tx);
}

/**
 * Moves a schedule back, and deletes the skipped rows of the slots in between, because the slots
 * are in the future again. Slots with a run, or waiting, stay recorded. Returns the number deleted.
 * The caller has locked the skipped rows, and then the watcher.
 */
export async function moveBack(tx: Db, move: MoveBack & { nextDueAt: Date }): Promise<number> {
  const { rows } = await sql<{ count: number }>`
    with junk as (
      delete from run_finished where ${skippedSince(move)} returning org_id, id
    ),
    freed as (
      delete from slot s using junk j
      where s.org_id = j.org_id and s.watcher_id = ${move.watcherId} and s.run_id = j.id
    ),
    dropped as (
      delete from backlog
      where org_id = ${move.orgId} and watcher_id = ${move.watcherId} and source = 'scheduled'
        and scheduled_for >= ${move.nextSlotAt}
    ),
    moved as (
      update schedule_position set next_slot_at = ${move.nextSlotAt}, next_due_at = ${move.nextDueAt}
      where org_id = ${move.orgId} and watcher_id = ${move.watcherId}
    )
    select count(*)::int as count from junk
  `.execute(tx);
  return onlyRow(rows).count;
}

/**
 * The lowest id of a run for a slot at or after the time: ids begin with the slot's time, or a
 * later time.
 */
function firstIdOf(slotAt: Date): string {
  const ms = Math.max(0, slotAt.getTime()).toString(16).padStart(12, "0");
  return `${ms.slice(0, 8)}-${ms.slice(8)}-0000-0000-000000000000`;
}

/**
 * The last complete check of all schedules, by any replica. `at`: its time as the database writes
 * it; null: the clock went back since, or no check has been complete. `isDue`: the check is at
 * least half of `everyMs` old.
 */
export type LastReplanning = { at: string | null; isDue: boolean };

export async function lastReplanning(db: Db, everyMs: number): Promise<LastReplanning> {
  const { rows } = await sql<LastReplanning>`
    select replanned_at::text as at, replanned_at is null or replanned_at > now()
      or replanned_at < now() - ${everyMs / 2} * interval '1 ms' as "isDue"
    from clock
  `.execute(db);
  return onlyRow(rows);
}

/** Records a complete check that followed `last`. A need that came during the check stays. */
export async function noteReplanned(db: Db, { at }: LastReplanning): Promise<void> {
  await sql`
    update clock set replanned_at = now() where replanned_at is not distinct from ${at}::timestamptz
  `.execute(db);
}
