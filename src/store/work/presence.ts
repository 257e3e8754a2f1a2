import { sql } from "kysely";
import type { Db } from "../pg/database.ts";
import { relaxed } from "../pg/relaxed.ts";
import { ofFew, unnest } from "../pg/unnest.ts";

/** Presence: which replica holds a device's stream, under which epoch, and when the device last beat. */

/**
 * A session's name. The epoch says which of two sessions is the newer one; the random id, that it is this one: a failover to a
 * standby that lags takes the epoch back, and a later session then has the epoch of an earlier one.
 */
export type SessionName = { orgId: string; deviceId: string; epoch: number; sessionId: string };

/** Which of a device's sessions. */
export type SessionKey = Pick<SessionName, "epoch" | "sessionId">;

/** The columns of a batch of sessions, as every statement that compares them takes them. */
export const sessionColumns = {
  org_id: ["text", (s: SessionName) => s.orgId],
  device_id: ["uuid", (s: SessionName) => s.deviceId],
  epoch: ["bigint", (s: SessionName) => s.epoch],
  session_id: ["uuid", (s: SessionName) => s.sessionId],
} as const;

/** A session as it was opened, and the replica whose stream it replaces, if one is still open. */
export type Opened = { epoch: number; sessionId: string; replacedReplicaId: string | null };

/**
 * Opens a session: the device's epoch grows by one, whatever replica held the last one, and it gets a random id.
 */
export async function open(
  tx: Db,
  session: { orgId: string; deviceId: string; replicaId: string },
): Promise<Opened> {
  const { rows } = await sql<Opened>`
    ${ofFew} with before as materialized (
      -- A claim for the older session holds this row's key, so what it claims is committed before we look for it.
      select replica_id, disconnected_at from presence
      where org_id = ${session.orgId} and device_id = ${session.deviceId}
      for update
    )
    insert into presence as p (org_id, device_id, epoch, session_id, replica_id, connected_at, last_beat_at)
    -- The count makes the older session be read before its row changes.
    select ${session.orgId}, ${session.deviceId}::uuid, 1, gen_random_uuid(), ${session.replicaId}, now(), now()
    from (select count(*) from before) as older
    on conflict (org_id, device_id) do update set
      epoch = p.epoch + 1, session_id = excluded.session_id, replica_id = excluded.replica_id, connected_at = now(), disconnected_at = null, last_beat_at = now()
    returning p.epoch, p.session_id as "sessionId", (select replica_id from before where disconnected_at is null) as "replacedReplicaId"
  `.execute(tx);
  return rows[0]!;
}

/**
 * Records the end of sessions; answers which ones ended. One that a newer session has replaced changes nothing
 * (compare-and-set on the epoch and the id).
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
 * A session that beats and is not its device's open one: the device was deleted (`gone`), a newer session replaced it
 * (`replaced`), or its own end is recorded already (`ended`), by whoever took it for lost.
 */
export type StaleSession = SessionName & { because: "gone" | "replaced" | "ended" };

/** Records heartbeats; answers which of the sessions are not their device's open one. */
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
  `.execute(db);
  return rows;
}

/** The replicas that hold the streams of these devices now; devices without a stream are left out. */
export async function locate(
  db: Db,
  devices: readonly { orgId: string; deviceId: string }[],
): Promise<{ orgId: string; deviceId: string; replicaId: string }[]> {
  if (devices.length === 0) return [];
  const input = unnest("i", devices, {
    org_id: ["text", (d) => d.orgId],
    device_id: ["uuid", (d) => d.deviceId],
  });
  const { rows } = await sql<{ orgId: string; deviceId: string; replicaId: string }>`
    select distinct p.org_id as "orgId", p.device_id as "deviceId", p.replica_id as "replicaId"
    from ${input} join presence p on p.org_id = i.org_id and p.device_id = i.device_id
    where p.disconnected_at is null and p.replica_id is not null
  `.execute(db);
  return rows;
}

/** The replicas that hold streams of these orgs' fleet workers now. */
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

/** What ExplainRun tells of a device. */
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
