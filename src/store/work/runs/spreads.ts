import { type RawBuilder, sql } from "kysely";
import { spreadRunId } from "../../../values/ids.ts";
import type { Db } from "../../pg/database.ts";
import { unnest } from "../../pg/values/unnest.ts";

/** Spread runs: a run on each device that matches the selector. */

export type Spread = { runId: string; watcherId: string; deviceId: string; isHeld: boolean };

/** The devices with a live run of the watcher from an earlier spread. */
export async function listBusy(tx: Db, watcher: { orgId: string; watcherId: string }): Promise<Set<string>> {
  const { rows } = await sql<{ id: string }>`
    select spread_to as id from run
    where org_id = ${watcher.orgId} and watcher_id = ${watcher.watcherId} and spread_to is not null
  `.execute(tx);
  return new Set(rows.map((row) => row.id));
}

/** The reason of a run that gives way ({@link giveWay}). */
export const gaveWay =
  "its devices had run it before a failover of the database, and gave their results back";

/**
 * Ends the waiting of a held run of which every device has run its copy: the run gives way. Its
 * slot has the run of one of them; a run without a slot is skipped, and then its watcher is
 * returned.
 */
export async function giveWay(
  tx: Db,
  run: { orgId: string; runId: string; deviceId: string },
): Promise<{ watcherId: string } | undefined> {
  const { orgId, runId } = run;
  const { rows } = await sql<{ watcherId: string }>`
    with gone as (
      delete from run where org_id = ${orgId} and id = ${runId} and is_held and spread_to is null
      returning *
    ),
    gate as (
      delete from run_gate g using gone where g.org_id = gone.org_id and g.run_id = ${runId}
    ),
    of_slot as (
      insert into slot (org_id, watcher_id, scheduled_for, run_id)
      select org_id, watcher_id, scheduled_for, ${spreadRunId(run)}::uuid from gone where scheduled_for is not null
      on conflict do nothing
    )
    insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
      notification, source, scheduled_for, window_start, window_end, due_at, created_at, start_deadline_at, timeout_ms,
      max_attempts, retry_of, status, attempt, reason, past_attempts, skip_reason)
    select org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification, source,
      scheduled_for, window_start, window_end, due_at, created_at, start_deadline_at, timeout_ms, max_attempts, retry_of,
      'skipped', 0, ${gaveWay}, '[]', 'overlap'
    from gone where scheduled_for is null
    returning watcher_id as "watcherId"`.execute(tx);
  return rows[0];
}

/**
 * Turns a held run into a run for each device, pinned to it: the run itself for the first device,
 * and copies for the others. The runs keep a gate if they have a group or a rate limit. Returns all
 * runs; none if the run is no longer held or is being ended. The caller holds the org's placing
 * lock.
 */
export async function spread(
  tx: Db,
  options: { orgId: string; runId: string; deviceIds: readonly string[] },
): Promise<Spread[]> {
  const { runId } = options;
  const places = options.deviceIds.map((deviceId, index) => ({
    deviceId,
    id: index === 0 ? runId : spreadRunId({ runId, deviceId }),
  }));
  const input = unnest("i", places, { id: ["uuid", (p) => p.id], device_id: ["uuid", (p) => p.deviceId] });
  const { rows } = await sql<Spread>`
    with parent as materialized (${heldRun(options, input)}),
    first as (${runOfFirstDevice}),
    others as (${runsOfOtherDevices(input)}),
    starts as (${startsOfOthers(runId)}),
    gates as (${gatesOfOthers}),
    own_gate as (${gateOfFirst}),
    no_gate as (${gateDropped})
    select id as "runId", watcher_id as "watcherId", device_id as "deviceId", is_held as "isHeld" from first
    union all
    select id, watcher_id, device_id, is_held from others
  `.execute(tx);
  return rows;
}

/** The run to spread, locked, with the device of its first place. */
const heldRun = ({ orgId, runId }: { orgId: string; runId: string }, input: RawBuilder<unknown>) => sql`
  select r.*, g.group_name is not null or g.rate_key is not null as stays_gated, i.device_id as target_id
  from (select * from run where org_id = ${orgId} and id = ${runId} and is_held and spread_to is null for update skip locked) r
    join run_gate g on g.org_id = r.org_id and g.run_id = r.id
    join ${input} on i.id = r.id`;

/** The run itself, now of the first device. */
const runOfFirstDevice = sql`
  update run r set device_id = p.target_id, spread_to = p.target_id, is_pinned = true, is_gated = p.stays_gated,
    is_held = p.stays_gated, reason = ''
  from parent p where r.org_id = p.org_id and r.id = p.id
  returning r.id, r.watcher_id, r.device_id, r.is_held`;

/**
 * The copies for the other devices. A copy that has ended already, and was given back by its device
 * after a failover had undone the spreading, is not made again.
 */
const runsOfOtherDevices = (input: RawBuilder<unknown>) => sql`
  insert into run (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification,
    source, scheduled_for, window_start, window_end, due_at, start_deadline_at, timeout_ms, max_attempts, retry_of, is_pinned,
    is_gated, is_held, spread_to)
  select p.org_id, i.id, p.watcher_id, p.watcher_version, p.agent_id, p.agent_version, i.device_id, p.agent_kind,
    p.notification, p.source, p.scheduled_for, p.window_start, p.window_end, p.due_at, p.start_deadline_at, p.timeout_ms,
    p.max_attempts, p.retry_of, true, p.stays_gated, p.stays_gated, i.device_id
  from parent p cross join ${input}
  where i.id <> p.id and not exists (select from run_finished f where f.org_id = p.org_id and f.id = i.id)
  on conflict (org_id, watcher_id, spread_to) do nothing
  returning id, watcher_id, device_id, is_held`;

/** The starts of the copies. As retries, they do not tell the end that started the run again. */
const startsOfOthers = (runId: string) => sql`
  insert into run_start (org_id, run_id, watcher_id, input, actor, hook_id, hook_slug, hook_delivery_id, after_run_id,
    after_watcher_slug, depth, is_retry)
  select s.org_id, o.id, s.watcher_id, s.input, s.actor, s.hook_id, s.hook_slug, s.hook_delivery_id, s.after_run_id,
    s.after_watcher_slug, s.depth, true
  from others o join run_start s on s.org_id = (select org_id from parent limit 1) and s.run_id = ${runId}`;

/** The gates of the copies: each copy is for one device, so the selector does not apply. */
const gatesOfOthers = sql`
  insert into run_gate (org_id, run_id, watcher_id, continues, group_name, group_max, group_per, priority, rate_key,
    rate_per_minute)
  select g.org_id, o.id, g.watcher_id, g.continues, g.group_name, g.group_max, g.group_per, g.priority, g.rate_key,
    g.rate_per_minute
  from others o, parent p join run_gate g on g.org_id = p.org_id and g.run_id = p.id
  where p.stays_gated`;

/** The gate of the run itself, if the run stays gated: for one device as well. */
const gateOfFirst = sql`
  update run_gate g set selector = null, spread = null from parent p
  where p.stays_gated and g.org_id = p.org_id and g.run_id = p.id`;

/** The gate of a run that needs none any more, deleted. */
const gateDropped = sql`
  delete from run_gate g using parent p where not p.stays_gated and g.org_id = p.org_id and g.run_id = p.id`;
