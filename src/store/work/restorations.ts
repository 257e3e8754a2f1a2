import { sql } from "kysely";
import { slotRunId, spreadRunId } from "../../ids.ts";
import { factsOf, type Labelled } from "../../labels.ts";
import { matches } from "../../selector.ts";
import type { Db } from "../pg/database.ts";
import { onlyRow } from "../pg/only-row.ts";

/**
 * Restores runs that the database lost in a failover to a standby that lagged, while their devices
 * have the results. A restored attempt counts as taken away: its completion is late
 * (late-results.ts), and settles the run.
 */

export type ForgottenAttempt = {
  orgId: string;
  deviceId: string;
  runId: string;
  attemptToken: string;
  attempt: number;
  watcherId: string;
  source: "scheduled" | "manual" | "backfill";
  scheduledFor: Date | null;
  windowStart: Date;
  windowEnd: Date;
};

const reason = "forgotten by the database in a failover; its device still had the result";

/**
 * Locks the watcher, as a writer of a run must. Returns false if there is no such watcher, or if its
 * work is not the device's (R6).
 */
async function lockWatcher(tx: Db, forgotten: ForgottenAttempt): Promise<boolean> {
  const { orgId, deviceId, watcherId } = forgotten;
  const { rows } = await sql<Labelled & { selector: string | null; isFixed: boolean }>`
    select w.placement->>'selector' as selector,
      (w.device_id is not distinct from d.id or (w.placement->>'selector' is null and d.is_worker)) as "isFixed",
      d.os, d.machine, d.executors, d.agent_kinds, d.workspaces, d.labels
    from watcher w join device d on d.org_id = w.org_id and d.id = ${deviceId}
    where w.org_id = ${orgId} and w.id = ${watcherId}
      and (w.device_id = d.id or (w.device_id is null and (d.is_worker = (w.placement->>'selector' is null))))
    for update of w
  `.execute(tx);
  const [found] = rows;
  if (!found) return false;
  return found.isFixed || (found.selector !== null && matches(found.selector, factsOf(found)));
}

/**
 * Restores an attempt, and its run if necessary. Returns whether the attempt is known now: false if
 * the watcher is gone, if its work is not the device's (R6), or if the slot has another run. The
 * runs of a spread slot are one for each device.
 */
export async function restore(tx: Db, forgotten: ForgottenAttempt): Promise<boolean> {
  if (!(await lockWatcher(tx, forgotten))) return false;
  if (await noteAttempt(tx, forgotten)) return true;
  if (!(await takeSlot(tx, forgotten))) return false;
  await leaveQueue(tx, forgotten);
  await insertEnded(tx, forgotten);
  return true;
}

/** Adds the attempt to the past attempts of its run; returns whether the database has the run. */
async function noteAttempt(tx: Db, forgotten: ForgottenAttempt): Promise<boolean> {
  const { orgId, deviceId, runId, attemptToken, attempt, watcherId } = forgotten;
  // Separate statements: a run that ends meanwhile, and so changes its table, is missed by the
  // first
  // lock and found by the second; the statement after the locks sees the run's table.
  await sql`select from run where org_id = ${orgId} and id = ${runId} for update`.execute(tx);
  await sql`select from run_finished where org_id = ${orgId} and id = ${runId} for update`.execute(tx);
  const entry = sql`jsonb_build_array(jsonb_build_object('attempt', ${attempt}::int, 'token', ${attemptToken}::text,
    'device_id', ${deviceId}::text, 'claimed_at', now(), 'ended_at', now(), 'last_beat_at', null,
    'reason', ${reason}::text, 'is_reported', false))`;
  const isNew = sql`org_id = ${orgId} and id = ${runId} and watcher_id = ${watcherId}
    and attempt_token is distinct from ${attemptToken}::uuid
    and not exists (select from jsonb_array_elements(past_attempts) e where e->>'token' = ${attemptToken}::text)`;
  const { rows } = await sql<{ isThere: boolean }>`
    with live as (
      update run set past_attempts = past_attempts || ${entry}, attempt = greatest(attempt, ${attempt}::int)
      where ${isNew} returning id
    ),
    ended as (
      update run_finished set past_attempts = past_attempts || ${entry} where ${isNew} returning id
    )
    select exists (select from run where org_id = ${orgId} and id = ${runId})
      or exists (select from run_finished where org_id = ${orgId} and id = ${runId})
      or (select count(*) > 0 from live) or (select count(*) > 0 from ended) as "isThere"
  `.execute(tx);
  return onlyRow(rows).isThere;
}

/**
 * Gives the slot to the run; returns false if the slot has another run. The database has the slot's
 * row under the slot's own id, under another recorded id, or not at all.
 */
async function takeSlot(tx: Db, forgotten: ForgottenAttempt): Promise<boolean> {
  const { orgId, deviceId, runId, watcherId, scheduledFor } = forgotten;
  if (!scheduledFor) return true;
  const slotId = slotRunId({ orgId, watcherId, scheduledFor });
  const isCopy = runId === spreadRunId({ runId: slotId, deviceId });
  const { rows: slots } = await sql<{ isFree: boolean }>`
    select not exists (select from run where org_id = ${orgId} and id = ${slotId})
      and not exists (select from run_finished where org_id = ${orgId} and id = ${slotId})
      and not exists (select from slot
        where org_id = ${orgId} and watcher_id = ${watcherId} and scheduled_for = ${scheduledFor}) as "isFree"
  `.execute(tx);
  if (!onlyRow(slots).isFree && !isCopy) return false;
  if (runId !== slotId && !isCopy) {
    await sql`
      insert into slot (org_id, watcher_id, scheduled_for, run_id)
      values (${orgId}, ${watcherId}, ${scheduledFor}, ${runId})
    `.execute(tx);
  }
  await sql`
    update schedule_position set last_slot_at = greatest(last_slot_at, ${scheduledFor})
    where org_id = ${orgId} and watcher_id = ${watcherId}
  `.execute(tx);
  return true;
}

/**
 * Removes the slot or start from the watcher's queue, where the standby may still have it waiting.
 */
async function leaveQueue(
  tx: Db,
  { orgId, runId, watcherId, scheduledFor }: ForgottenAttempt,
): Promise<void> {
  await sql`
    delete from backlog where org_id = ${orgId} and watcher_id = ${watcherId}
      and (run_id = ${runId} or (run_id is null and scheduled_for = ${scheduledFor}))
  `.execute(tx);
}

/** Writes the run as ended with the attempt, by a timeout. */
async function insertEnded(tx: Db, forgotten: ForgottenAttempt): Promise<void> {
  const { orgId, deviceId, runId, attemptToken, attempt, watcherId, scheduledFor } = forgotten;
  await sql`
    insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
      notification, source, scheduled_for, window_start, window_end, due_at, created_at, timeout_ms, max_attempts, status,
      attempt, attempt_token, claimed_at, started_at, reason, past_attempts)
    select w.org_id, ${runId}, w.id, w.version, w.agent_id, coalesce(a.version, 0), ${deviceId}, w.agent_kind,
      w.notification, ${forgotten.source}, ${scheduledFor}, ${forgotten.windowStart}, ${forgotten.windowEnd},
      ${forgotten.windowEnd}, now(), w.timeout_ms, w.max_attempts, 'timeout', ${attempt}, ${attemptToken}, now(), now(),
      ${reason}, '[]'
    from watcher w left join agent a on a.org_id = w.org_id and a.id = w.agent_id
    where w.org_id = ${orgId} and w.id = ${watcherId}
  `.execute(tx);
}
