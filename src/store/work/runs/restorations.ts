import { sql } from "kysely";
import { nameOfRun, slotRunId, spreadRunId } from "../../../ids.ts";
import { factsOf, type Labelled } from "../../../labels.ts";
import { matches } from "../../../selector.ts";
import type { Db } from "../../pg/database.ts";
import { onlyRow } from "../../pg/only-row.ts";

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
  source: "scheduled" | "manual" | "backfill" | "hook" | "after";
  scheduledFor: Date | null;
  windowStart: Date;
  windowEnd: Date;
};

const reason = "forgotten by the database in a failover; its device still had the result";

type Watcher = { runsOnAll: boolean };

/**
 * Locks the watcher, as a writer of a run must. Returns undefined if there is no such watcher, or if
 * its work is not the device's (R6).
 */
async function lockWatcher(tx: Db, forgotten: ForgottenAttempt): Promise<Watcher | undefined> {
  const { orgId, deviceId, watcherId } = forgotten;
  const { rows } = await sql<Labelled & Watcher & { selector: string | null; isFixed: boolean }>`
    select w.placement->>'selector' as selector, coalesce(w.placement->>'spread' = 'all', false) as "runsOnAll",
      (w.device_id is not distinct from d.id or (w.placement->>'selector' is null and d.is_worker)) as "isFixed",
      d.os, d.machine, d.executors, d.agent_kinds, d.workspaces, d.labels
    from watcher w join device d on d.org_id = w.org_id and d.id = ${deviceId}
    where w.org_id = ${orgId} and w.id = ${watcherId}
      and (w.device_id = d.id or (w.device_id is null and (d.is_worker = (w.placement->>'selector' is null))))
    for update of w
  `.execute(tx);
  const [found] = rows;
  if (!found) return undefined;
  return found.isFixed || matches(found.selector ?? "", factsOf(found)) ? found : undefined;
}

/** The ids of a slot's own run, and of its copy for the device. */
function slotIdsOf({ orgId, watcherId, deviceId }: ForgottenAttempt, scheduledFor: Date) {
  const slotId = slotRunId({ orgId, watcherId, scheduledFor });
  return { slotId, copyId: spreadRunId({ runId: slotId, deviceId }) };
}

/**
 * Restores an attempt, and its run if necessary. Returns the id of the run that has the attempt now;
 * undefined if the watcher is gone, if its work is not the device's (R6), or if the slot has another
 * run. The runs of a spread slot are one for each device.
 */
export async function restore(tx: Db, given: ForgottenAttempt): Promise<string | undefined> {
  const watcher = await lockWatcher(tx, given);
  if (!watcher) return undefined;
  const forgotten = { ...given, runId: watcher.runsOnAll ? await findOwn(tx, given) : given.runId };
  if (await addAttempt(tx, forgotten)) return forgotten.runId;
  if (forgotten.scheduledFor && !(await takeSlot(tx, forgotten, forgotten.scheduledFor))) return undefined;
  await leaveQueue(tx, forgotten);
  await insertEnded(tx, forgotten);
  if (forgotten.source === "hook") await noteStart(tx, forgotten);
  return forgotten.runId;
}

/**
 * The run of a spread slot on the device. The slot's own run is on the first of the devices: if the
 * database has forgotten the spreading, the slot is spread again, so the result goes to the device's
 * copy, and the other devices get their runs.
 */
async function findOwn(tx: Db, forgotten: ForgottenAttempt): Promise<string> {
  const { orgId, deviceId, runId, scheduledFor } = forgotten;
  if (!scheduledFor) return runId;
  const { slotId, copyId } = slotIdsOf(forgotten, scheduledFor);
  if (runId !== slotId) return runId;
  const { rows } = await sql<{ isOwn: boolean }>`
    select exists (select from run where org_id = ${orgId} and id = ${runId} and spread_to = ${deviceId})
      or exists (select from run_finished where org_id = ${orgId} and id = ${runId} and device_id = ${deviceId})
      as "isOwn"
  `.execute(tx);
  return onlyRow(rows).isOwn ? runId : copyId;
}

/** Adds the attempt to its run as one that was taken away; false without the run. */
async function addAttempt(tx: Db, forgotten: ForgottenAttempt): Promise<boolean> {
  const { orgId, deviceId, runId, attemptToken, attempt, watcherId } = forgotten;
  // Separate statements: a run that ends meanwhile, and so changes its table, is missed by the first and
  // found by the second; what follows sees where it is.
  await sql`select from run where org_id = ${orgId} and id = ${runId} for update`.execute(tx);
  await sql`select from run_finished where org_id = ${orgId} and id = ${runId} for update`.execute(tx);
  const entry = sql`jsonb_build_array(jsonb_build_object('attempt', ${attempt}::int, 'token', ${attemptToken}::text,
    'device_id', ${deviceId}::text, 'claimed_at', now(), 'ended_at', now(), 'last_beat_at', null,
    'reason', ${reason}::text, 'is_reported', false))`;
  const isMissing = sql`org_id = ${orgId} and id = ${runId} and watcher_id = ${watcherId}
    and attempt_token is distinct from ${attemptToken}::uuid
    and not exists (select from jsonb_array_elements(past_attempts) e where e->>'token' = ${attemptToken}::text)`;
  const { rows } = await sql<{ isThere: boolean }>`
    with live as (
      update run set past_attempts = past_attempts || ${entry}, attempt = greatest(attempt, ${attempt}::int)
      where ${isMissing}
      returning id
    ),
    ended as (
      update run_finished set past_attempts = past_attempts || ${entry} where ${isMissing} returning id
    )
    select exists (select from run where org_id = ${orgId} and id = ${runId})
      or exists (select from run_finished where org_id = ${orgId} and id = ${runId})
      or (select count(*) > 0 from live) or (select count(*) > 0 from ended) as "isThere"
  `.execute(tx);
  return onlyRow(rows).isThere;
}

/** Records that the slot has its row; false if the slot has another run. */
async function takeSlot(tx: Db, forgotten: ForgottenAttempt, scheduledFor: Date): Promise<boolean> {
  const { orgId, runId, watcherId } = forgotten;
  // The slot has its row under its own id, under another recorded id, or not at all.
  const { slotId, copyId } = slotIdsOf(forgotten, scheduledFor);
  const isCopy = runId === copyId;
  const { rows } = await sql<{ isFree: boolean }>`
    select not exists (select from run where org_id = ${orgId} and id = ${slotId})
      and not exists (select from run_finished where org_id = ${orgId} and id = ${slotId})
      and not exists (select from slot
        where org_id = ${orgId} and watcher_id = ${watcherId} and scheduled_for = ${scheduledFor}) as "isFree"
  `.execute(tx);
  if (!onlyRow(rows).isFree && !isCopy) return false;
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

/** The standby may still have the slot or the start waiting: it has run. A copy is not its slot. */
async function leaveQueue(tx: Db, forgotten: ForgottenAttempt): Promise<void> {
  const { orgId, runId, watcherId, scheduledFor } = forgotten;
  const isCopy = scheduledFor !== null && runId === slotIdsOf(forgotten, scheduledFor).copyId;
  await sql`
    delete from backlog where org_id = ${orgId} and watcher_id = ${watcherId}
      and (run_id = ${runId} or (run_id is null and scheduled_for = ${isCopy ? null : scheduledFor}))
  `.execute(tx);
}

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

/**
 * Remembers the run by the name in its id, for as long as the answers to repeated requests: a hook's
 * sender may send a delivery again that the database has forgotten as well.
 */
async function noteStart(tx: Db, { orgId, runId }: ForgottenAttempt): Promise<void> {
  await sql`
    insert into request (org_id, actor, rpc, id, made)
    values (${orgId}, 'pinion', ${startRpc}, ${nameOfRun(runId)}, jsonb_build_object('run_id', ${runId}::text))
    on conflict (org_id, actor, rpc, id) do nothing
  `.execute(tx);
}

/** The place of remembered starts among the requests; no rpc has the name. */
const startRpc = "restored start";

/** The restored run with the same name in its id; undefined for none. */
export async function findStarted(
  tx: Db,
  start: { orgId: string; runId: string },
): Promise<string | undefined> {
  const { rows } = await sql<{ runId: string }>`
    select made->>'run_id' as "runId" from request
    where org_id = ${start.orgId} and actor = 'pinion' and rpc = ${startRpc} and id = ${nameOfRun(start.runId)}
  `.execute(tx);
  return rows[0]?.runId;
}
