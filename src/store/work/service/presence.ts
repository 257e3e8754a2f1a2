import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { relaxed } from "../../pg/relaxed.ts";
import { onlyRow } from "../../pg/values/only-row.ts";
import { ofAnySize, unnest } from "../../pg/values/unnest.ts";

/**
 * Presence: the replica with a device's stream, the session's epoch, and the time of the device's
 * last heartbeat.
 */

/** How often a replica writes the heartbeats that it has received, at least: writes in a TTL. */
export const beatWritesPerTtl = 6;

/**
 * A session's name. The epoch tells the newer of two sessions; the random id identifies the
 * session, because a failover to a standby that lags resets the epoch, and a later session then has
 * the epoch of an earlier session.
 */
export type SessionName = { orgId: string; deviceId: string; epoch: number; sessionId: string };

export type DeviceName = Pick<SessionName, "orgId" | "deviceId">;

/** Identifies a session among its device's sessions. */
export type SessionKey = Pick<SessionName, "epoch" | "sessionId">;

/** The columns of a batch of devices. */
export const deviceColumns = {
  org_id: ["text", (d: DeviceName) => d.orgId],
  device_id: ["uuid", (d: DeviceName) => d.deviceId],
} as const;

/** The columns of a batch of sessions, common to all statements that compare sessions. */
export const sessionColumns = {
  ...deviceColumns,
  epoch: ["bigint", (s: SessionName) => s.epoch],
  session_id: ["uuid", (s: SessionName) => s.sessionId],
} as const;

/** An attempt that goes on in a session. */
export type Adopted = SessionName & { workId: string };

export const adoptedColumns = {
  ...sessionColumns,
  work_id: ["uuid", (a: Adopted) => a.workId],
} as const;

/**
 * An opened session, and the replica with the stream that it replaces, if that stream is still
 * open.
 */
export type Opened = {
  epoch: number;
  sessionId: string;
  replacedReplicaId: string | null;
  /**
   * The end of the device's last session, or its last heartbeat, if it is longer ago than the TTL;
   * otherwise null.
   */
  absentSince: Date | null;
};

/** Opens a session: {@link openAll} for one device. */
export async function open(
  tx: Db,
  { replicaId, ttlMs, ...device }: DeviceName & { replicaId: string; ttlMs: number },
): Promise<Opened> {
  return onlyRow(await openAll(tx, { replicaId, ttlMs }, [device]));
}

/**
 * Opens sessions, in order, of different devices: a device's epoch grows by one, also after a
 * session on another replica, and the session gets a random id.
 */
export async function openAll(
  tx: Db,
  { replicaId, ttlMs }: { replicaId: string; ttlMs: number },
  devices: readonly DeviceName[],
): Promise<Opened[]> {
  if (devices.length === 0) return [];
  const { rows } = await sql<Opened>`
    ${ofAnySize} with input as materialized (
      select i.org_id, i.device_id, i.ord from ${unnest("i", devices, deviceColumns)}
    ),
    before as materialized (
      -- A claim for the older session holds this row's key, so what it claims is committed before we look for it.
      select p.org_id, p.device_id, p.replica_id, p.disconnected_at, p.last_beat_at
      from input i join presence p on p.org_id = i.org_id and p.device_id = i.device_id
      order by p.org_id, p.device_id
      for update of p
    ),
    opened as (
      insert into presence as p (org_id, device_id, epoch, session_id, replica_id, connected_at, last_beat_at)
      -- The count makes the older sessions be read before their rows change.
      select i.org_id, i.device_id, 1, gen_random_uuid(), ${replicaId}, now(), now()
      from input i cross join (select count(*) from before) as older
      order by i.org_id, i.device_id
      on conflict (org_id, device_id) do update set
        epoch = p.epoch + 1, session_id = excluded.session_id, replica_id = excluded.replica_id, connected_at = now(), disconnected_at = null, last_beat_at = now()
      returning p.org_id, p.device_id, p.epoch, p.session_id
    )
    select o.epoch, o.session_id as "sessionId",
      case when b.disconnected_at is null then b.replica_id end as "replacedReplicaId",
      case when now() - coalesce(b.disconnected_at, b.last_beat_at) > ${ttlMs} * interval '1 ms'
        then coalesce(b.disconnected_at, b.last_beat_at) end as "absentSince"
    from input i join opened o on o.org_id = i.org_id and o.device_id = i.device_id
      left join before b on b.org_id = o.org_id and b.device_id = o.device_id
    order by i.ord
  `.execute(tx);
  return rows;
}

/**
 * Records the end of sessions; returns the sessions that ended. A session replaced by a newer
 * session changes nothing (compare-and-set on the epoch and the id).
 */
export async function close(db: Db, sessions: readonly SessionName[]): Promise<SessionName[]> {
  if (sessions.length === 0) return [];
  const input = unnest("i", sessions, sessionColumns);
  const { rows } = await sql<SessionName>`
    with mine as materialized (
      select p.org_id, p.device_id from presence p join ${input}
        on p.org_id = i.org_id and p.device_id = i.device_id and p.epoch = i.epoch and p.session_id = i.session_id
          and p.disconnected_at is null
      order by p.org_id, p.device_id
      for update of p
    )
    update presence p set disconnected_at = now() from mine m where p.org_id = m.org_id and p.device_id = m.device_id
    returning p.org_id as "orgId", p.device_id as "deviceId", p.epoch, p.session_id as "sessionId"
  `.execute(db);
  return rows;
}

/**
 * A session that sends heartbeats and is not its device's open session: the device was deleted
 * (`gone`), a newer session replaced it (`replaced`), or its end is recorded already (`ended`),
 * because it was taken for lost.
 */
export type StaleSession = SessionName & { because: "gone" | "replaced" | "ended" };

/** Records heartbeats; returns the sessions that are not their device's open session. */
export async function beat(db: Db, sessions: readonly SessionName[]): Promise<StaleSession[]> {
  if (sessions.length === 0) return [];
  const input = unnest("i", sessions, sessionColumns);
  const { rows } = await sql<StaleSession>`
    with ${relaxed}, input as materialized (select i.* from relaxed cross join ${input}),
    mine as materialized (
      select p.org_id, p.device_id from presence p join input i
        on p.org_id = i.org_id and p.device_id = i.device_id and p.epoch = i.epoch and p.session_id = i.session_id
          and p.disconnected_at is null
      order by p.org_id, p.device_id
      -- Not the key: a claim, which passes over locked rows, must find the session all the same.
      for no key update of p
    ),
    beaten as (
      update presence p set last_beat_at = now()
      from mine m where p.org_id = m.org_id and p.device_id = m.device_id
    )
    select i.org_id as "orgId", i.device_id as "deviceId", i.epoch, i.session_id as "sessionId",
      case
        when not exists (select from device d where d.org_id = i.org_id and d.id = i.device_id) then 'gone'
        when exists (select from presence p where p.org_id = i.org_id and p.device_id = i.device_id
          and p.epoch = i.epoch and p.session_id = i.session_id and p.disconnected_at is not null) then 'ended'
        else 'replaced'
      end as because
    from input i left join mine m on m.org_id = i.org_id and m.device_id = i.device_id
    where m.device_id is null
      -- A session that ended while the statement waited for its row: what ended the session is not visible here, and
      -- the next beat tells.
      and not exists (select from presence p where p.org_id = i.org_id and p.device_id = i.device_id
        and p.epoch = i.epoch and p.session_id = i.session_id and p.disconnected_at is null)
  `.execute(db);
  return rows;
}

/** The replicas with the devices' streams; devices without a stream are left out. */
export async function locate(
  db: Db,
  devices: readonly { orgId: string; deviceId: string }[],
): Promise<{ orgId: string; deviceId: string; replicaId: string }[]> {
  if (devices.length === 0) return [];
  const input = unnest("i", devices, deviceColumns);
  const { rows } = await sql<{ orgId: string; deviceId: string; replicaId: string }>`
    select distinct p.org_id as "orgId", p.device_id as "deviceId", p.replica_id as "replicaId"
    from ${input} join presence p on p.org_id = i.org_id and p.device_id = i.device_id
    where p.disconnected_at is null and p.replica_id is not null
  `.execute(db);
  return rows;
}

/** The replicas with streams of the orgs' fleet workers. */
export async function locateWorkers(
  db: Db,
  orgIds: readonly string[],
): Promise<{ orgId: string; replicaId: string }[]> {
  if (orgIds.length === 0) return [];
  const { rows } = await sql<{ orgId: string; replicaId: string }>`
    select distinct p.org_id as "orgId", p.replica_id as "replicaId"
    from device d join presence p on p.org_id = d.org_id and p.device_id = d.id
    where d.org_id = any(${orgIds as string[]}::text[]) and d.is_worker
      and p.disconnected_at is null and p.replica_id is not null
  `.execute(db);
  return rows;
}

/** A device's presence, for ExplainRun. */
export type PresenceView = {
  epoch: number;
  replicaId: string | null;
  connectedAt: Date | null;
  disconnectedAt: Date | null;
  lastBeatAt: Date | null;
};

export async function find(
  db: Db,
  device: { orgId: string; deviceId: string },
): Promise<PresenceView | undefined> {
  const { rows } = await sql<PresenceView>`
    select epoch, replica_id as "replicaId", connected_at as "connectedAt", disconnected_at as "disconnectedAt",
      last_beat_at as "lastBeatAt"
    from presence where org_id = ${device.orgId} and device_id = ${device.deviceId}
  `.execute(db);
  return rows[0];
}
