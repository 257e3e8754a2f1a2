import { sql } from "kysely";
import { matches } from "../../../cel/selector.ts";
import { newId, slotRunId, spreadRunId, timeOfRun } from "../../../values/ids.ts";
import { factsOf, type Labelled } from "../../../values/labels.ts";
import type { Db } from "../../pg/database.ts";
import { LostRace } from "../../pg/failures.ts";
import { onlyRow } from "../../pg/values/only-row.ts";
import * as liveRuns from "./live-runs.ts";
import * as restoredStarts from "./restored-starts.ts";

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
 * Locks the watcher, as a writer of a run must, after its live runs and after the ended runs that
 * restoring may change, as a late result does. Returns undefined if there is no such watcher, or if
 * its work is not the device's (R6): then nothing is locked.
 *
 * Throws {@link LostRace}, so that the transaction begins anew, if such a run ended while the
 * watcher's lock was awaited.
 */
async function lockWatcher(tx: Db, forgotten: ForgottenAttempt): Promise<Watcher | undefined> {
  const { orgId, watcherId } = forgotten;
  const found = await findWatcher(tx, forgotten);
  if (!found) return undefined;
  let locked = 0;
  await liveRuns.lockWithWatchers(tx, {
    // As for a removal: a start that refers to the watcher waits, and then finds the restored run.
    ...{ orgId, of: { watcherIds: [watcherId] }, for: "removal" },
    async beforeWatchers() {
      locked = (await listEnded(tx, forgotten, found, { isLocking: true })).length;
    },
  });
  const watcher = await findWatcher(tx, forgotten);
  if (watcher && (await listEnded(tx, forgotten, watcher, { isLocking: false })).length > locked) {
    throw new LostRace("a run of the watcher ended meanwhile");
  }
  return watcher;
}

/** The ended runs that may have the attempt: of its id, of its slot, of a repeat of its start. */
async function listEnded(
  tx: Db,
  forgotten: ForgottenAttempt,
  watcher: Watcher,
  { isLocking }: { isLocking: boolean },
): Promise<unknown[]> {
  const { orgId, watcherId, runId, scheduledFor } = forgotten;
  const ids = [runId, await findOwn(tx, forgotten, watcher)];
  if (scheduledFor) ids.push(...Object.values(slotIdsOf(forgotten, scheduledFor)));
  const { rows } = await sql`
    select from run_finished
    where org_id = ${orgId} and (id = any(${ids}::uuid[]) or id in (select run_id from slot
      where org_id = ${orgId} and watcher_id = ${watcherId} and scheduled_for = ${scheduledFor}))
    order by id ${isLocking ? sql`for update` : sql``}`.execute(tx);
  return rows;
}

async function findWatcher(tx: Db, forgotten: ForgottenAttempt): Promise<Watcher | undefined> {
  const { orgId, deviceId, watcherId } = forgotten;
  const { rows } = await sql<Labelled & Watcher & { selector: string | null; isFixed: boolean }>`
    select w.placement->>'selector' as selector, coalesce(w.placement->>'spread' = 'all', false) as "runsOnAll",
      (w.device_id is not distinct from d.id or (w.placement->>'selector' is null and d.is_worker)) as "isFixed",
      d.os, d.machine, d.executors, d.agent_kinds, d.workspaces, d.labels
    from watcher w join device d on d.org_id = w.org_id and d.id = ${deviceId}
    where w.org_id = ${orgId} and w.id = ${watcherId}
      and (w.device_id = d.id or (w.device_id is null and (d.is_worker = (w.placement->>'selector' is null))))
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
 * Restores an attempt, and its run if necessary. Returns the id of the run that has the attempt
 * now; undefined if the watcher is deleted, or if the watcher's work does not belong to the device
 * (R6). A watcher that runs on all devices spreads a slot: one run for each device.
 */
export async function restore(tx: Db, given: ForgottenAttempt): Promise<string | undefined> {
  const watcher = await lockWatcher(tx, given);
  if (!watcher) return undefined;
  const forgotten = { ...given, runId: await findOwn(tx, given, watcher) };
  if (await addAttempt(tx, forgotten)) return forgotten.runId;
  if (forgotten.scheduledFor && !(await takeSlot(tx, forgotten, forgotten.scheduledFor))) {
    return addToOther(tx, forgotten, forgotten.scheduledFor);
  }
  await leaveQueue(tx, forgotten);
  await insertEnded(tx, forgotten);
  if (watcher.runsOnAll) await restoredStarts.noteOnDevice(tx, forgotten, given.runId);
  else if (!given.scheduledFor) await restoredStarts.note(tx, forgotten, given.runId);
  return forgotten.runId;
}

/**
 * The id of the attempt's run, in a database that may have started the run again under another id.
 */
async function findOwn(tx: Db, forgotten: ForgottenAttempt, { runsOnAll }: Watcher): Promise<string> {
  const { runId, scheduledFor } = forgotten;
  if (scheduledFor) return runsOnAll ? findOfSlot(tx, forgotten, scheduledFor) : runId;
  const found = await findNamed(tx, forgotten, { runsOnAll });
  if (found) return found;
  // On the first device the run has the start's own id. A repeat of the start may need this id, so
  // the restored run gets the id of the device's copy.
  return runsOnAll ? spreadRunId(forgotten) : runId;
}

/**
 * The id of the device's run of a spread slot. The slot's own id belongs to the run on the first
 * device; the other devices have copies with ids of their own. If the database has lost the first
 * device's run, the slot will be spread again and needs its own id: the restored run then gets the
 * id of the device's copy.
 */
async function findOfSlot(tx: Db, forgotten: ForgottenAttempt, scheduledFor: Date): Promise<string> {
  const { orgId, deviceId, runId } = forgotten;
  const { slotId, copyId } = slotIdsOf(forgotten, scheduledFor);
  if (runId !== slotId) return runId;
  const { rows } = await sql<{ isOwn: boolean }>`
    select exists (select from run where org_id = ${orgId} and id = ${runId} and spread_to = ${deviceId})
      or exists (select from run_finished where org_id = ${orgId} and id = ${runId} and device_id = ${deviceId})
      as "isOwn"
  `.execute(tx);
  return onlyRow(rows).isOwn ? runId : copyId;
}

/** Maximum milliseconds that the new database's clock is behind the old database's clock. */
const clockBehindMs = 3_600_000;

/**
 * The id of the run that a repeat of the same start has made: the caller repeated the start before
 * the result came back. The two ids differ in their time and agree in the rest. Undefined without a
 * repeat. The run may wait in the watcher's queue (`backlog`); a queued start on all devices has
 * not been spread yet.
 */
async function findNamed(
  tx: Db,
  { orgId, deviceId, runId, watcherId }: ForgottenAttempt,
  { runsOnAll }: Watcher,
): Promise<string | undefined> {
  // The device's run of a repeated start has the start's own id, or the id of a copy.
  const ids = runsOnAll ? [runId, spreadRunId({ runId, deviceId })] : [runId];
  const isNamed = (column: string) => restoredStarts.isNamed(sql.ref(column), ids);
  const isShare = (column: string) => (runsOnAll ? sql`${sql.ref(column)} = ${deviceId}` : sql`true`);
  const since = newId(Math.max(0, timeOfRun(runId) - clockBehindMs));
  const { rows } = await sql<{ id: string }>`
    select id from run where org_id = ${orgId} and watcher_id = ${watcherId} and ${isNamed("id")} and ${isShare("spread_to")}
    union all
    select run_id from backlog where org_id = ${orgId} and watcher_id = ${watcherId} and ${isNamed("run_id")} and ${!runsOnAll}
    union all
    select id from run_finished where org_id = ${orgId} and watcher_id = ${watcherId} and id >= ${since}
      and ${isNamed("id")} and ${isShare("device_id")} and status <> 'skipped'
    limit 1
  `.execute(tx);
  return rows[0]?.id;
}

/** Adds the attempt to its run as one that was taken away; false without the run. */
async function addAttempt(tx: Db, forgotten: ForgottenAttempt): Promise<boolean> {
  const { orgId, deviceId, runId, attemptToken, attempt, watcherId } = forgotten;
  // Two statements: a run that ends meanwhile moves from `run` to `run_finished`. Then the first
  // statement finds no row, and the second one finds and locks the row.
  await sql`select from run where org_id = ${orgId} and id = ${runId} for update`.execute(tx);
  await sql`select from run_finished where org_id = ${orgId} and id = ${runId} for update`.execute(tx);
  // clock_timestamp(), because now() may be earlier than the writes of the transactions that this
  // one has waited for. The claim's time is not known, so claim and end have one time (explain.ts).
  const entry = sql`(select jsonb_build_array(jsonb_build_object('attempt', ${attempt}::int,
      'token', ${attemptToken}::text, 'device_id', ${deviceId}::text, 'claimed_at', c.at, 'ended_at', c.at,
      'last_beat_at', null, 'reason', ${reason}::text, 'is_reported', false))
    from (select clock_timestamp() as at) c)`;
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
  // The slot's row has the slot's own id, or another id that `slot` records, or does not exist.
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

/**
 * Restores the attempt in the run that `slot` records under another id: the new database has
 * skipped the slot, for example as missed in the outage. Returns the run's id.
 */
async function addToOther(
  tx: Db,
  forgotten: ForgottenAttempt,
  scheduledFor: Date,
): Promise<string | undefined> {
  const { orgId, deviceId, watcherId, attempt, attemptToken, windowStart, windowEnd } = forgotten;
  const { rows } = await sql<{ runId: string }>`
    select run_id as "runId" from slot
    where org_id = ${orgId} and watcher_id = ${watcherId} and scheduled_for = ${scheduledFor}
  `.execute(tx);
  const [other] = rows;
  if (!other) return undefined;
  const { numAffectedRows } = await sql`
    update run_finished set status = 'timeout', skip_reason = null, reason = ${reason}, device_id = ${deviceId},
      attempt = ${attempt}, attempt_token = ${attemptToken}, claimed_at = now(), started_at = now(),
      window_start = ${windowStart}, window_end = ${windowEnd}
    where org_id = ${orgId} and id = ${other.runId} and status = 'skipped'
  `.execute(tx);
  if (numAffectedRows) return other.runId;
  return (await addAttempt(tx, { ...forgotten, runId: other.runId })) ? other.runId : undefined;
}

/**
 * Deletes the slot or the start from the watcher's queue: on the standby it may still wait,
 * although it has run. A copy leaves the slot in the queue.
 */
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
