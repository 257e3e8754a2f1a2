import { type RawBuilder, sql } from "kysely";
import { refuse } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import type { DeviceRow } from "../../pg/schema/schema-people.ts";
import { ofAnySize, unnest } from "../../pg/values/unnest.ts";
import * as events from "../../work/service/events.ts";
import { describe } from "../changes.ts";

export type Os = "macos" | "linux" | "windows" | "ios" | "android" | "browser";
/** Systems that run local programs. */
const programSystems: ReadonlySet<string> = new Set<Os>(["macos", "linux", "windows"]);

export function runsPrograms(os: string): boolean {
  return programSystems.has(os);
}

/** Whether a device is there, by the database's clock. */
export type Liveness = "online" | "unsteady" | "offline" | "never";

/** A device with the state of its session and its runs. */
export type Device = DeviceRow & {
  liveness: Liveness;
  session_epoch: number;
  replica_id: string | null;
  connected_at: Date | null;
  disconnected_at: Date | null;
  last_beat_at: Date | null;
  /** Number of attempts claimed or running on the device. */
  active_runs: number;
  /** Number of runs that wait for the device. */
  pending_runs: number;
};

/** The device of an installation, without a lock. */
export function findInstallation(
  db: Db,
  options: { orgId: string; installId: string },
): Promise<{ ownerId: string | null; os: string; isWorker: boolean } | undefined> {
  return db
    .selectFrom("device")
    .select(["owner_id as ownerId", "os", "is_worker as isWorker"])
    .where("org_id", "=", options.orgId)
    .where("install_id", "=", options.installId)
    .executeTakeFirst();
}

/**
 * Writes an enrolled device, new or again; undefined if the owner has changed since `ownerIdBefore`
 * was read.
 */
export async function enroll(
  tx: Db,
  options: {
    orgId: string;
    installId: string;
    os: Os;
    label: string;
    appVersion: string;
    ownerId: string | null;
    ownerIdBefore: string | null;
  },
): Promise<{ deviceId: string; isNew: boolean } | undefined> {
  const { orgId, installId, os, label, appVersion, ownerId, ownerIdBefore } = options;
  const { rows } = await sql<{ deviceId: string; isNew: boolean }>`
    insert into device (org_id, owner_id, install_id, os, label, app_version)
    values (${orgId}, ${ownerId}, ${installId}, ${os}, ${label}, ${appVersion})
    on conflict (org_id, install_id) do update
      set owner_id = excluded.owner_id, label = excluded.label, app_version = excluded.app_version
      where device.os = excluded.os and not device.is_worker
        and (device.owner_id is not distinct from ${ownerIdBefore}::uuid or device.owner_id = ${ownerId}::uuid)
    returning id as "deviceId", xmax = 0 as "isNew"`.execute(tx);
  return rows[0];
}

/** Locks a device until the commit; undefined if the org has no such device. */
export function lock(
  tx: Db,
  options: { orgId: string; deviceId: string },
): Promise<{ label: string; ownerId: string | null; isWorker: boolean } | undefined> {
  return tx
    .selectFrom("device")
    .select(["label", "owner_id as ownerId", "is_worker as isWorker"])
    .where("org_id", "=", options.orgId)
    .where("id", "=", options.deviceId)
    .forUpdate()
    .executeTakeFirst();
}

/** For the presence `p`. Signs of life are heartbeats, and the opening and closing of a stream. */
export function livenessOf(ttlMs: number): RawBuilder<Liveness> {
  const ttl = sql`${ttlMs} * interval '1 millisecond'`;
  return sql`case
    when p.connected_at is null then 'never'
    when p.disconnected_at is null and greatest(p.last_beat_at, p.connected_at) > now() - ${ttl} then 'online'
    when p.disconnected_at is not null and greatest(p.last_beat_at, p.disconnected_at) > now() - ${ttl} then 'unsteady'
    else 'offline' end`;
}

/** Devices `d` with their presence `p` and the numbers of their runs. */
export function selectDevices(db: Db, ttlMs: number) {
  return db
    .selectFrom("device as d")
    .leftJoin("presence as p", (join) =>
      join.onRef("p.org_id", "=", "d.org_id").onRef("p.device_id", "=", "d.id"),
    )
    .leftJoinLateral(
      (eb) =>
        eb
          .selectFrom("run as r")
          .select(sql<number>`count(*) filter (where r.status = 'pending')`.as("pending"))
          .select(sql<number>`count(*) filter (where r.status <> 'pending')`.as("active"))
          .whereRef("r.org_id", "=", "d.org_id")
          .whereRef("r.device_id", "=", "d.id")
          .as("runs"),
      (join) => join.onTrue(),
    )
    .selectAll("d")
    .select(["p.replica_id", "p.connected_at", "p.disconnected_at", "p.last_beat_at"])
    .select(livenessOf(ttlMs).as("liveness"))
    .select(sql<number>`coalesce(p.epoch, 0)`.as("session_epoch"))
    .select(sql<number>`runs.active`.as("active_runs"))
    .select(sql<number>`runs.pending`.as("pending_runs"));
}

/** The device's row, without its session's state. */
export function find(db: Db, options: { orgId: string; deviceId: string }): Promise<DeviceRow | undefined> {
  return db
    .selectFrom("device")
    .selectAll()
    .where("org_id", "=", options.orgId)
    .where("id", "=", options.deviceId)
    .executeTakeFirst();
}

/** The number of remembered absences of a device. */
const absencesMax = 20;

export type Absence = { orgId: string; deviceId: string; since: Date };

/** Remembers absences until now; one within the TTL is none. */
export async function noteAbsences(tx: Db, ttlMs: number, absences: readonly Absence[]): Promise<void> {
  if (absences.length === 0) return;
  const input = unnest("i", absences, {
    org_id: ["text", (absence) => absence.orgId],
    device_id: ["uuid", (absence) => absence.deviceId],
    since: ["timestamptz", (absence) => absence.since],
  });
  await sql`
    update device d set absences = (
      select coalesce(jsonb_agg(a.span order by a.place), '[]') from (
        select span, place
        from jsonb_array_elements(d.absences || jsonb_build_object('from', i.since, 'to', now()))
          with ordinality as each (span, place)
        order by place desc limit ${absencesMax}
      ) a
    )
    from ${input}
    where d.org_id = i.org_id and d.id = i.device_id and now() - i.since > ${ttlMs} * interval '1 ms'
  `.execute(tx);
}

/** What a hello is compared with. */
const knownColumns = [
  ...(["org_id", "id", "install_id", "os", "label", "app_version", "agent_kinds", "capabilities"] as const),
  ...([
    "max_concurrency",
    "executors",
    "workspaces",
    "config_problem",
    "upgrade",
    "machine",
    "duplicate",
  ] as const),
];

/** A device as known from its last hello. */
export type Known = Pick<DeviceRow, (typeof knownColumns)[number]>;

export type Returning = Known & {
  /** The tokens of the attempts on the device. */
  attemptTokens: string[];
  /** No other transaction works on the device's session. */
  isFree: boolean;
  /** Of the device's last session, if a heartbeat came in it; otherwise 0. */
  beatenEpoch: number;
};

/**
 * Devices, in order, undefined for none. The presence of those that are free is locked; waits for
 * nothing.
 */
export async function lockReturning(
  tx: Db,
  devices: readonly { orgId: string; deviceId: string }[],
): Promise<(Returning | undefined)[]> {
  const input = unnest("i", devices, {
    org_id: ["text", (device) => device.orgId],
    device_id: ["uuid", (device) => device.deviceId],
  });
  const { rows } = await sql<Returning & { ord: number }>`
    ${ofAnySize} with input as materialized (select i.org_id, i.device_id, i.ord from ${input}),
    locked as materialized (
      select p.org_id, p.device_id from input i join presence p on p.org_id = i.org_id and p.device_id = i.device_id
      order by p.org_id, p.device_id
      for update of p skip locked
    )
    select i.ord, ${sql.join(knownColumns.map((column) => sql.ref(`d.${column}`)))},
      array(
        select attempt_token from run where org_id = d.org_id and device_id = d.id and status <> 'pending'
        union all
        select attempt_token from turn where org_id = d.org_id and holder_id = d.id and status <> 'pending'
      )::text[] as "attemptTokens",
      exists (select from locked l where l.org_id = d.org_id and l.device_id = d.id)
        or not exists (select from presence p where p.org_id = d.org_id and p.device_id = d.id) as "isFree",
      coalesce((select p.epoch from presence p
        where p.org_id = d.org_id and p.device_id = d.id and p.last_beat_at > p.connected_at), 0) as "beatenEpoch"
    from input i join device d on d.org_id = i.org_id and d.id = i.device_id
  `.execute(tx);
  const byOrd = new Map(rows.map(({ ord, ...device }) => [ord, device]));
  return devices.map((_, index) => byOrd.get(index + 1));
}

/** The number of other devices of the org with the label. */
export async function countOthers(
  db: Db,
  { orgId, deviceId, label }: { orgId: string; deviceId: string; label: string },
): Promise<number> {
  const { count } = await db
    .selectFrom("device")
    .select((eb) => eb.fn.countAll<number>().as("count"))
    .where("org_id", "=", orgId)
    .where("label", "=", label)
    .where("id", "<>", deviceId)
    .executeTakeFirstOrThrow();
  return Number(count);
}

/** The device with its liveness. Refuses with `not_found`, also for another org's device. */
export async function get(
  db: Db,
  options: { orgId: string; deviceId: string; ttlMs: number },
): Promise<Device> {
  const device = await selectDevices(db, options.ttlMs)
    .where("d.org_id", "=", options.orgId)
    .where("d.id", "=", options.deviceId)
    .executeTakeFirst();
  return device ?? notFound(options.deviceId);
}

export function notFound(deviceId: string): never {
  refuse("not_found", `there is no device ${deviceId}`);
}

/**
 * Gives a device another label, with the event `device.updated`; the same label changes nothing.
 * Refuses with `not_found`.
 */
export function updateLabel(
  db: Db,
  options: { orgId: string; deviceId: string; label: string; actor: string },
): Promise<void> {
  return transaction(db, async (tx) => {
    const before = await tx
      .selectFrom("device")
      .select("label")
      .where("org_id", "=", options.orgId)
      .where("id", "=", options.deviceId)
      .forNoKeyUpdate()
      .executeTakeFirst();
    if (!before) notFound(options.deviceId);
    if (before.label === options.label) return;
    await tx
      .updateTable("device")
      .set({ label: options.label })
      .where("org_id", "=", options.orgId)
      .where("id", "=", options.deviceId)
      .execute();
    await events.append(tx, options.orgId, [
      {
        kind: "device.updated",
        actor: options.actor,
        deviceId: options.deviceId,
        data: describe({ label: before.label }, { label: options.label }),
      },
    ]);
  });
}

/**
 * Deletes a locked device with its presence. Its owner may still read the output of its runs: see
 * grants.ts.
 */
export async function remove(
  tx: Db,
  device: { orgId: string; deviceId: string; label: string; ownerId: string | null; isWorker: boolean },
): Promise<void> {
  const { orgId, deviceId, label, ownerId } = device;
  await tx.deleteFrom("device").where("org_id", "=", orgId).where("id", "=", deviceId).execute();
  if (device.isWorker) return;
  await tx
    .insertInto("device_past")
    .values({ org_id: orgId, device_id: deviceId, label, owner_id: ownerId })
    .execute();
}
