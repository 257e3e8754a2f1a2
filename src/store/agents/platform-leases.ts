/**
 * Leases of platforms' instances, and the instances' news of themselves.
 *
 * - P5 An instance of a platform runs on one replica, under a lease with an epoch. Epochs of a
 *   platform's lease only grow. A replica that lost the lease writes nothing under its epoch.
 * - P6 A lease serves one start of its platform, and is renewed only for this start: a stop, a
 *   deletion and a later start end the lease. A lease that is not renewed in time is free.
 */
import { sql } from "kysely";
import { type Db, transaction } from "../pg/database.ts";
import { type Looks, looksAlone } from "../pg/looks.ts";
import { storableText } from "../pg/values/storable.ts";
import { unnest } from "../pg/values/unnest.ts";
import type { Named, Platform } from "./platforms.ts";

/** A lease that a replica has taken. */
export type Lease = Named & { epoch: number };

/** The news that an instance tells of itself. */
export type Instance = {
  stableId: string;
  /** The replica that has the lease now; null: none. */
  replicaId: string | null;
  lastInAt: Date | null;
  lastOutAt: Date | null;
  /** Empty: none since the start. */
  lastError: string;
  lastErrorAt: Date | null;
};

/** Epochs stay ahead of the clock, so that they also grow across a deletion of the platform. */
const clockEpoch = sql<number>`(extract(epoch from clock_timestamp()) * 1000)::bigint`;
const until = (ttlMs: number) => sql<Date>`clock_timestamp() + ${ttlMs} * interval '1 ms'`;
const isFree = sql<boolean>`(i.replica_id is null or i.lease_until < clock_timestamp())`;

/**
 * Takes the lease for a start of the platform. "gone": the start was overtaken; "held": another
 * replica has the lease for now.
 */
export async function take(
  db: Db,
  wanted: Named & { startEpoch: number; replicaId: string; ttlMs: number },
): Promise<Lease | "gone" | "held"> {
  const { orgId, stableId, startEpoch, replicaId, ttlMs } = wanted;
  const { rows } = await sql<{ epoch: number }>`
    insert into platform_instance as i (org_id, stable_id, start_epoch, epoch, replica_id, lease_until)
    select p.org_id, p.stable_id, p.epoch, ${clockEpoch}, ${replicaId}, ${until(ttlMs)} from platform p
    where p.org_id = ${orgId} and p.stable_id = ${stableId} and p.epoch = ${startEpoch}
      and p.status in ('starting', 'running')
    on conflict (org_id, stable_id) do update set
      start_epoch = excluded.start_epoch, epoch = greatest(i.epoch + 1, excluded.epoch),
      replica_id = excluded.replica_id, lease_until = excluded.lease_until, retry_at = null,
      last_error = '', last_error_at = null
    where ${isFree}
    returning epoch`.execute(db);
  if (rows[0]) return { orgId, stableId, epoch: rows[0].epoch };
  const { rows: found } = await sql`
    select from platform where org_id = ${orgId} and stable_id = ${stableId} and epoch = ${startEpoch}
      and status in ('starting', 'running')`.execute(db);
  return found.length > 0 ? "held" : "gone";
}

/**
 * Takes up to `limit` running platforms of the kinds that no replica runs. Rows that other replicas
 * are taking are skipped.
 */
export async function takeAbandoned(
  db: Db,
  wanted: { replicaId: string; ttlMs: number; kinds: readonly string[]; limit: number; looks?: Looks },
): Promise<(Lease & { platform: Platform })[]> {
  const { replicaId, ttlMs, kinds, limit, looks = looksAlone(db) } = wanted;
  const abandoned = sql`
    from platform p left join platform_instance i using (org_id, stable_id)
    where p.status = 'running' and p.kind = any(${kinds as string[]}::text[]) and ${isFree}
      and (i.retry_at is null or i.retry_at <= clock_timestamp())`;
  // Nearly always no platform is abandoned; a look then suffices.
  const isAny = await looks.ask({ expression: sql`exists (select ${abandoned})`, read: Boolean });
  if (!isAny) return [];
  return transaction(db, async (tx) => {
    const { rows } = await sql<Platform>`
      select p.org_id, p.stable_id, p.agent_id, p.kind, p.config, p.secrets, p.version, p.epoch, p.created_at,
        p.updated_at, p.status, p.status_reason
      ${abandoned}
      order by p.org_id, p.stable_id
      limit ${limit}
      for update of p skip locked`.execute(tx);
    if (rows.length === 0) return [];
    const input = unnest("w", rows, {
      org_id: ["text", (row) => row.org_id],
      stable_id: ["text", (row) => row.stable_id],
      start_epoch: ["bigint", (row) => row.epoch],
    });
    const { rows: taken } = await sql<Lease>`
      insert into platform_instance as i (org_id, stable_id, start_epoch, epoch, replica_id, lease_until)
      select w.org_id, w.stable_id, w.start_epoch, ${clockEpoch}, ${replicaId}, ${until(ttlMs)} from ${input}
      on conflict (org_id, stable_id) do update set
        start_epoch = excluded.start_epoch, epoch = greatest(i.epoch + 1, excluded.epoch),
        replica_id = excluded.replica_id, lease_until = excluded.lease_until
      where ${isFree}
      returning org_id as "orgId", stable_id as "stableId", epoch`.execute(tx);
    return taken.flatMap((lease) => {
      const platform = rows.find((row) => row.org_id === lease.orgId && row.stable_id === lease.stableId);
      return platform ? [{ ...lease, platform }] : [];
    });
  });
}

/** Renews leases of the replica; returns the leases that the replica still has (P6). */
export async function renew(
  db: Db,
  { replicaId, ttlMs, leases }: { replicaId: string; ttlMs: number; leases: readonly Lease[] },
): Promise<Lease[]> {
  if (leases.length === 0) return [];
  const { rows } = await sql<Lease>`
    update platform_instance i set lease_until = ${until(ttlMs)}
    from ${unnest("l", leases, leaseColumns)}, platform p
    where i.org_id = l.org_id and i.stable_id = l.stable_id and i.epoch = l.epoch and i.replica_id = ${replicaId}
      and p.org_id = i.org_id and p.stable_id = i.stable_id and p.epoch = i.start_epoch
      and p.status in ('starting', 'running')
    returning i.org_id as "orgId", i.stable_id as "stableId", i.epoch`.execute(db);
  return rows;
}

/** Gives leases back, so that others may take them at once; a lease that moved on stays. */
export async function release(
  db: Db,
  leases: readonly Lease[],
  { retryInMs }: { retryInMs?: number } = {},
): Promise<void> {
  if (leases.length === 0) return;
  await sql`
    update platform_instance i set replica_id = null, lease_until = null,
      retry_at = ${retryInMs === undefined ? null : until(retryInMs)}
    from ${unnest("l", leases, leaseColumns)}
    where i.org_id = l.org_id and i.stable_id = l.stable_id and i.epoch = l.epoch`.execute(db);
}

/** Whether an instance of a start up to `startEpoch` may still run on another replica. */
export async function isHeld(
  db: Db,
  which: Named & { startEpoch: number; replicaId: string },
): Promise<boolean> {
  const { rows } = await sql`
    select from platform_instance i
    where i.org_id = ${which.orgId} and i.stable_id = ${which.stableId} and i.start_epoch <= ${which.startEpoch}
      and i.replica_id <> ${which.replicaId} and not ${isFree}`.execute(db);
  return rows.length > 0;
}

/** News of an instance; undefined leaves the stored value. */
export type News = Named & { inAt?: Date; outAt?: Date; error?: string };

/** Stores news of instances, from whatever replica: the latest moments stay. */
export async function note(db: Db, news: readonly News[]): Promise<void> {
  if (news.length === 0) return;
  const input = unnest("n", news, {
    org_id: ["text", ({ orgId }) => orgId],
    stable_id: ["text", ({ stableId }) => stableId],
    in_at: ["timestamptz", ({ inAt }) => inAt ?? null],
    out_at: ["timestamptz", ({ outAt }) => outAt ?? null],
    error: ["text", ({ error }) => (error === undefined ? null : storableText(error))],
  });
  await sql`
    update platform_instance i set
      last_in_at = greatest(i.last_in_at, n.in_at), last_out_at = greatest(i.last_out_at, n.out_at),
      last_error = coalesce(n.error, i.last_error),
      last_error_at = case when n.error is null then i.last_error_at else now() end
    from ${input} where i.org_id = n.org_id and i.stable_id = n.stable_id`.execute(db);
}

/** Instances of the org's platforms, by stable id. */
export async function findAll(
  db: Db,
  { orgId, stableIds }: { orgId: string; stableIds: readonly string[] },
): Promise<Map<string, Instance>> {
  if (stableIds.length === 0) return new Map();
  const { rows } = await sql<Instance>`
    select i.stable_id as "stableId", case when ${isFree} then null else i.replica_id end as "replicaId",
      i.last_in_at as "lastInAt", i.last_out_at as "lastOutAt", i.last_error as "lastError",
      i.last_error_at as "lastErrorAt"
    from platform_instance i
    where i.org_id = ${orgId} and i.stable_id = any(${stableIds as string[]}::text[])`.execute(db);
  return new Map(rows.map((row) => [row.stableId, row]));
}

/** For a statement with the lease's epoch: whether the lease is still the caller's (P5). */
export function isOwn(lease: Lease) {
  return sql<boolean>`exists (select from platform_instance i where i.org_id = ${lease.orgId}
    and i.stable_id = ${lease.stableId} and i.epoch = ${lease.epoch} and i.replica_id is not null)`;
}

/** For `unnest`. */
export const leaseColumns = {
  org_id: ["text", (lease: Lease) => lease.orgId],
  stable_id: ["text", (lease: Lease) => lease.stableId],
  epoch: ["bigint", (lease: Lease) => lease.epoch],
} as const;
