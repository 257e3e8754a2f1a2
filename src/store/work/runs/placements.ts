import { sql } from "kysely";
import type { Labelled } from "../../../values/labels.ts";
import type { Db } from "../../pg/database.ts";
import type { Look } from "../../pg/looks.ts";
import { onlyRow } from "../../pg/values/only-row.ts";
import { unnest } from "../../pg/values/unnest.ts";
import { workspaceOfWatcher } from "../watchers/device-offers.ts";

/**
 * Placing: chooses the device of a gated run, and the time. Claims never see a held run; placing
 * sets its device, and then the run is claimed like any other. Every pass that places runs of an
 * org holds the org's lock, so the counts of groups and rate limits are exact until the commit, on
 * any number of replicas.
 */

/**
 * Takes the org's lock until the commit. Later statements read the data for decisions, and see the
 * last holder's writes.
 */
export async function lockOrg(tx: Db, orgId: string): Promise<void> {
  await sql`select pg_advisory_xact_lock(hashtextextended('place ' || ${orgId}, 0))`.execute(tx);
}

/** Orgs with gated runs, live or recently ended. */
export const gatedOrgs: Look<string[]> = {
  expression: sql`array(select distinct org_id from run_gate)`,
  read: (orgIds) => orgIds as string[],
};

/** Removes the gates of ended runs; answers how many gated runs live. */
export async function tidy(tx: Db, orgId: string): Promise<number> {
  const { rows } = await sql<{ live: number }>`
    with ended as (
      delete from run_gate g
      where g.org_id = ${orgId} and not exists (select from run r where r.org_id = g.org_id and r.id = g.run_id)
      returning g.run_id
    )
    select ((select count(*) from run_gate where org_id = ${orgId}) - (select count(*) from ended))::int as live
  `.execute(tx);
  return onlyRow(rows).live;
}

/** For the presence `p`: whether its device has a stream and sent a heartbeat within the TTL. */
const isOnline = (ttlMs: number) => sql`coalesce(p.disconnected_at is null
  and greatest(p.last_beat_at, p.connected_at) > now() - ${ttlMs} * interval '1 ms', false)`;

/**
 * Holds placed runs again that were not claimed: their device is absent, or has not claimed the run
 * for `patienceMs` milliseconds, for example because other runs filled its slots. Rows locked by
 * other transactions are skipped.
 */
export async function takeBack(
  tx: Db,
  options: { orgId: string; ttlMs: number; patienceMs: number },
): Promise<number> {
  const { orgId, ttlMs, patienceMs } = options;
  const result = await sql`
    with left_behind as materialized (
      select r.org_id, r.id
      from run r
        join run_gate g on g.org_id = r.org_id and g.run_id = r.id
        left join presence p on p.org_id = r.org_id and p.device_id = r.device_id
      where r.org_id = ${orgId} and r.is_gated and not r.is_held and r.status = 'pending'
        and (g.placed_at < now() - ${patienceMs} * interval '1 ms' or (r.device_id is not null and not ${isOnline(ttlMs)}))
      order by r.id
      for update of r skip locked
    )
    update run r set is_held = true, device_id = case when r.is_pinned then r.device_id end
    from left_behind l where r.org_id = l.org_id and r.id = l.id
  `.execute(tx);
  return Number(result.numAffectedRows ?? 0);
}

/** A held run that could start now, and its conditions. */
export type Held = {
  runId: string;
  watcherId: string;
  /** The pin. */
  deviceId: string | null;
  agentKind: string;
  /** The workspace named by the run's watcher, or by its agent; null: none. */
  workspace: string | null;
  dueAt: Date;
  priority: number;
  reason: string;
  selector: string | null;
  spread: "one" | "all" | null;
  /** Actors whose rights to use a device count, for a run with a selector. */
  sponsor: string | null;
  askedBy: string | null;
  /** The watcher sends results to destinations, so its sponsor must be allowed to read them. */
  isTold: boolean;
  /** The device with the session that the run's agent continues. */
  sessionDeviceId: string | null;
  groupName: string | null;
  groupPer: "org" | "device" | null;
  rateKey: string | null;
  ratePerMinute: number | null;
  /** Devices with an earlier attempt of the run. */
  pastDeviceIds: string[];
};

export type Place = { priority: number; dueAt: Date; runId: string };

/** The org's due held runs in the order of starting: by priority, then by due time. */
export async function listHeld(
  tx: Db,
  options: { orgId: string; after?: Place | undefined; limit: number; runId?: string },
): Promise<Held[]> {
  const { orgId, after, limit, runId } = options;
  const { rows } = await sql<Held>`
    select r.id as "runId", r.watcher_id as "watcherId", r.device_id as "deviceId", r.agent_kind as "agentKind",
      ${workspaceOfWatcher} as workspace, r.due_at as "dueAt", g.priority, r.reason, g.selector, g.spread, w.sponsor, g.asked_by as "askedBy",
      w.notify is not null as "isTold",
      s.device_id as "sessionDeviceId", g.group_name as "groupName", g.group_per as "groupPer", g.rate_key as "rateKey",
      g.rate_per_minute as "ratePerMinute",
      array(select entry->>'device_id' from jsonb_array_elements(r.past_attempts) entry
        where entry->>'device_id' is not null) as "pastDeviceIds"
    from run r
      join run_gate g on g.org_id = r.org_id and g.run_id = r.id
      left join watcher w on w.org_id = r.org_id and w.id = r.watcher_id
      left join lateral (
        select f.device_id
        from run_finished f join run_report rp on rp.org_id = f.org_id and rp.run_id = f.id
        where g.continues and g.selector is not null and f.org_id = r.org_id and f.watcher_id = r.watcher_id
          and f.device_id is not null and rp.session_id <> ''
        order by f.id desc limit 1
      ) s on true
    where r.org_id = ${orgId} and r.is_held
      ${
        runId
          ? sql`and r.id = ${runId}::uuid`
          : sql`and r.due_at <= now() and (r.not_before is null or r.not_before <= now())
              and (r.start_deadline_at is null or r.start_deadline_at > now())`
      }
      ${
        after
          ? sql`and (-g.priority, r.due_at, r.id) > (${-after.priority}::int, ${after.dueAt}::timestamptz, ${after.runId}::uuid)`
          : sql``
      }
    order by -g.priority, r.due_at, r.id
    limit ${limit}
  `.execute(tx);
  return rows;
}

/** Milliseconds until the next held run falls due or may be offered again; undefined for none. */
export async function findNextMs(tx: Db, orgId: string): Promise<number | undefined> {
  const { rows } = await sql<{ ms: number | null }>`
    select (extract(epoch from min(greatest(due_at, not_before)) - clock_timestamp()) * 1000)::float8 as ms
    from run where org_id = ${orgId} and is_held and greatest(due_at, not_before) > now()
  `.execute(tx);
  return rows[0]?.ms ?? undefined;
}

/** A device as seen by placing. */
export type Candidate = Labelled & {
  deviceId: string;
  label: string;
  isWorker: boolean;
  isOnline: boolean;
  slots: number;
  /**
   * Number of slots used or reserved: active attempts, active turns, and placed runs not yet
   * claimed.
   */
  used: number;
  /** Number of pinned runs that wait for the device. */
  waiting: number;
};

/** The org's devices and workers; with `onlineOnly` only the online devices and workers. */
export async function listCandidates(
  tx: Db,
  options: { orgId: string; ttlMs: number; onlineOnly: boolean },
): Promise<Candidate[]> {
  const { orgId, ttlMs, onlineOnly } = options;
  const { rows } = await sql<Candidate>`
    with busy as materialized (
      select device_id,
        count(*) filter (where (status <> 'pending' and due_at <= now()) or (status = 'pending' and is_gated)) as used,
        count(*) filter (where status = 'pending' and not is_gated) as waiting
      from run where org_id = ${orgId} and device_id is not null and not is_held group by device_id
    ),
    talking as materialized (
      select holder_id, count(*) as used from turn where org_id = ${orgId} and holder_id is not null group by holder_id
    )
    select d.id as "deviceId", d.label, d.is_worker as "isWorker", ${isOnline(ttlMs)} as "isOnline",
      d.max_concurrency as slots, (coalesce(b.used, 0) + coalesce(t.used, 0))::int as used,
      coalesce(b.waiting, 0)::int as waiting,
      d.os, d.machine, d.executors, d.agent_kinds, d.workspaces, d.labels
    from device d
      left join presence p on p.org_id = d.org_id and p.device_id = d.id
      left join busy b on b.device_id = d.id
      left join talking t on t.holder_id = d.id
    where d.org_id = ${orgId} ${onlineOnly ? sql`and ${isOnline(ttlMs)}` : sql``}
    order by d.label, d.id
  `.execute(tx);
  return rows;
}

/** The number of active runs of a group on a device, and the smallest limit of its live runs. */
export type GroupCount = {
  name: string;
  per: "org" | "device";
  deviceId: string | null;
  active: number;
  max: number;
};

export async function countGroups(tx: Db, orgId: string, names: readonly string[]): Promise<GroupCount[]> {
  if (names.length === 0) return [];
  const { rows } = await sql<GroupCount>`
    select g.group_name as name, g.group_per as per, r.device_id as "deviceId",
      count(*) filter (where not r.is_held) as active, min(g.group_max) as max
    from run_gate g join run r on r.org_id = g.org_id and r.id = g.run_id
    where g.org_id = ${orgId} and g.group_name = any(${names as string[]}::text[])
    group by g.group_name, g.group_per, r.device_id
  `.execute(tx);
  return rows;
}

/** The starts under a key within the last minute: their ages in milliseconds, the oldest first. */
export type RateState = { key: string; agesMs: number[]; pausedMs: number };

export async function readRates(tx: Db, orgId: string, keys: readonly string[]): Promise<RateState[]> {
  if (keys.length === 0) return [];
  const { rows } = await sql<RateState>`
    select key, greatest(0, coalesce(extract(epoch from paused_until - clock_timestamp()) * 1000, 0))::float8 as "pausedMs",
      array(select (extract(epoch from clock_timestamp() - at) * 1000)::float8 from unnest(starts) at
        where at > clock_timestamp() - interval '1 minute' order by at) as "agesMs"
    from rate_key where org_id = ${orgId} and key = any(${keys as string[]}::text[])
  `.execute(tx);
  return rows;
}

/** Records starts under keys; starts older than a minute are dropped. */
export async function noteStarts(
  tx: Db,
  orgId: string,
  starts: readonly { key: string; count: number }[],
): Promise<void> {
  if (starts.length === 0) return;
  const input = unnest("i", starts, { key: ["text", (s) => s.key], count: ["int", (s) => s.count] });
  await sql`
    insert into rate_key (org_id, key, starts)
    select ${orgId}, key, array_fill(clock_timestamp(), array[count]) from ${input}
    on conflict (org_id, key) do update set touched_at = now(),
      starts = array(select at from unnest(rate_key.starts) at where at > clock_timestamp() - interval '1 minute' order by at)
        || excluded.starts
  `.execute(tx);
}

/**
 * Pauses the rate limits of deferred runs until their `notBefore`, in the transaction that deferred
 * the runs; runs without a rate limit change nothing.
 */
export async function pauseRates(
  tx: Db,
  deferred: readonly { orgId: string; runId: string; notBefore: Date }[],
): Promise<void> {
  if (deferred.length === 0) return;
  const input = unnest("i", deferred, {
    org_id: ["text", (d) => d.orgId],
    run_id: ["uuid", (d) => d.runId],
    until: ["timestamptz", (d) => d.notBefore],
  });
  await sql`
    insert into rate_key (org_id, key, paused_until)
    select g.org_id, g.rate_key, max(i.until) from ${input}
      join run_gate g on g.org_id = i.org_id and g.run_id = i.run_id
    where g.rate_key is not null
    group by g.org_id, g.rate_key order by g.org_id, g.rate_key
    on conflict (org_id, key) do update
      set paused_until = greatest(rate_key.paused_until, excluded.paused_until), touched_at = now()
  `.execute(tx);
}

export type Placed = { runId: string; watcherId: string; deviceId: string | null };

/**
 * Places held runs, each on its device (null: for any fleet worker); returns the runs that were
 * still held. Rows locked by other transactions are skipped: their runs are being ended.
 */
export async function place(
  tx: Db,
  orgId: string,
  places: readonly { runId: string; deviceId: string | null }[],
): Promise<Placed[]> {
  if (places.length === 0) return [];
  const input = unnest("i", places, {
    run_id: ["uuid", (p) => p.runId],
    device_id: ["uuid", (p) => p.deviceId],
  });
  const { rows } = await sql<Placed>`
    with held as materialized (
      select r.org_id, r.id, i.device_id
      from (select * from ${input} order by run_id) i
        cross join lateral (
          select org_id, id from run where org_id = ${orgId} and id = i.run_id and is_held and status = 'pending'
          for update skip locked
        ) r
    ),
    noted as (
      update run_gate g set placed_at = clock_timestamp() from held h where g.org_id = h.org_id and g.run_id = h.id
    )
    update run r set is_held = false, device_id = coalesce(h.device_id, r.device_id), reason = ''
    from held h where r.org_id = h.org_id and r.id = h.id
    returning r.id as "runId", r.watcher_id as "watcherId", r.device_id as "deviceId"
  `.execute(tx);
  return rows;
}

/** Says on held runs why they wait. */
export async function explain(
  tx: Db,
  orgId: string,
  reasons: readonly { runId: string; reason: string }[],
): Promise<void> {
  if (reasons.length === 0) return;
  const input = unnest("i", reasons, { run_id: ["uuid", (r) => r.runId], reason: ["text", (r) => r.reason] });
  await sql`
    with held as materialized (
      select r.org_id, r.id, i.reason
      from (select * from ${input} order by run_id) i
        cross join lateral (
          select org_id, id from run where org_id = ${orgId} and id = i.run_id and is_held for update skip locked
        ) r
    )
    update run r set reason = h.reason from held h where r.org_id = h.org_id and r.id = h.id
  `.execute(tx);
}
