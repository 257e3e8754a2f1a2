import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import { canonical } from "../../pg/values/canonical.ts";
import * as events from "../../work/service/events.ts";
import { beatWritesPerTtl } from "../../work/service/presence.ts";
import type { Known } from "./devices.ts";

/** The machine and the daemon of a session. Empty texts are unknown. */
export type Machine = {
  machineHash: string;
  bootHash: string;
  hostName: string;
  arch: string;
  daemonId: string;
};

/**
 * Whether two fingerprints belong to different machines: all parts known in both differ. A single
 * changed part is allowed.
 */
export function isOtherMachine(a: Partial<Machine>, b: Partial<Machine>): boolean {
  const known = (["machineHash", "bootHash"] as const).filter((part) => a[part] && b[part]);
  return known.length > 0 && known.every((part) => a[part] !== b[part]);
}

/** Whether two fingerprints belong to different daemons of one machine. */
function isOtherDaemon(a: Partial<Machine>, b: Partial<Machine>): boolean {
  return Boolean(a.daemonId && b.daemonId) && a.daemonId !== b.daemonId;
}

/** Minimum milliseconds between events, and between writes, for the same duplicate. */
const duplicateEventMs = 3_600_000;
const duplicateWriteMs = 60_000;

/**
 * The session that forbids a new session. The session's daemon is on another machine (`machine`),
 * was alive on this machine together with the new daemon (`daemon`), is a clone of the new daemon
 * (`clone`), or was not heard since the new daemon's start (`perhaps_ended`): that daemon may have
 * been killed, or may come back to its attempts.
 */
export type Rival = { hostName: string; kind: "machine" | "daemon" | "clone" | "perhaps_ended" };

/** The daemon that asks for a session. */
export type Newcomer = {
  machine: Machine;
  /** Undefined if unknown. */
  daemonAgeMs: number | undefined;
  /** The epoch of the newcomer's last session since its start; 0: none. */
  sessionEpoch: bigint;
  /** The tokens of the newcomer's attempts. */
  held: ReadonlySet<string>;
};

/** A device's last session. */
export type LastSession = {
  epoch: number;
  isOpen: boolean;
  /** Milliseconds since the session's last sign of life. */
  silentMs: number;
  /** A heartbeat came, so the session's welcome had arrived. */
  isBeaten: boolean;
  /**
   * The tokens of the attempts that run in the session, without attempts with a requested cancel.
   */
  running: readonly string[];
};

type Limits = {
  ttlMs: number;
  /** Devices may have been silent because no replica or no database could hear them. */
  isQuiet: boolean;
};

/**
 * Finds the rival of a hello: see {@link rivalOf}. A duplicate is recorded on the device, with the
 * event `device.duplicate_refused` at most once an hour.
 */
export async function findRival(
  db: Db,
  before: Known,
  newcomer: Newcomer,
  limits: Limits,
): Promise<Rival | undefined> {
  const current = before.machine as Partial<Machine>;
  const { machine, sessionEpoch } = newcomer;
  if (sessionEpoch === 0n && !isOtherMachine(current, machine) && !isOtherDaemon(current, machine))
    return undefined;
  const last = await findLast(db, before);
  const kind = last && rivalOf(current, last, newcomer, limits);
  if (!kind) return undefined;
  const hostName = current.hostName ?? "";
  if (kind !== "perhaps_ended") {
    await noteDuplicate(db, before, { kind, hostName: machine.hostName, connectedFrom: hostName });
  }
  return { hostName, kind };
}

/**
 * Whether the device's last session forbids the newcomer's, and why; `current` is the last
 * session's machine and daemon. A session that is alive keeps the device. A session that has ended
 * keeps the device for the TTL while attempts run in the session: the daemon with these attempts
 * comes back to them, whichever daemon is the first to connect. A daemon that follows another one,
 * for example after a reboot, lists these attempts in its hello.
 */
export function rivalOf(
  current: Partial<Machine>,
  last: LastSession,
  { machine, daemonAgeMs = 0, sessionEpoch, held }: Newcomer,
  { ttlMs, isQuiet }: Limits,
): Rival["kind"] | undefined {
  const isElsewhere = isOtherMachine(current, machine);
  const isOther = isElsewhere || isOtherDaemon(current, machine);
  const isClone = !isOther && isLaterSession(last, sessionEpoch);
  if (!isOther && !isClone) return undefined;
  const kind = isElsewhere ? "machine" : isClone ? "clone" : "daemon";
  const wasAlong = isClone || last.silentMs + ttlMs / beatWritesPerTtl < daemonAgeMs;
  const isHeard = last.silentMs < ttlMs;
  if (last.isOpen && isHeard) return isElsewhere || wasAlong ? kind : "perhaps_ended";
  if (last.running.length === 0 || !(isHeard || isQuiet)) return undefined;
  if (wasAlong) return kind;
  return isElsewhere || last.running.some((token) => !held.has(token)) ? "perhaps_ended" : undefined;
}

/**
 * Whether the session belongs to a clone of the daemon: the session is later than the daemon's last
 * session, and its welcome has arrived. After a failover the session may be earlier than the
 * daemon's last session.
 */
export function isLaterSession(last: Pick<LastSession, "epoch" | "isBeaten">, sessionEpoch: bigint): boolean {
  return sessionEpoch > 0n && BigInt(last.epoch) > sessionEpoch && last.isBeaten;
}

/** The device's last session; undefined: the device never had a session. */
async function findLast(db: Db, device: Known): Promise<LastSession | undefined> {
  const running = (table: "run" | "turn", holder: "device_id" | "holder_id") => sql`
    select w.attempt_token from ${sql.table(table)} w
    where w.org_id = p.org_id and w.${sql.ref(holder)} = p.device_id and w.status = 'running'
      and w.cancel_requested_at is null`;
  const { rows } = await sql<LastSession>`
    select p.epoch, p.disconnected_at is null as "isOpen", p.last_beat_at > p.connected_at as "isBeaten",
      extract(epoch from now() - greatest(p.last_beat_at, p.connected_at))::float8 * 1000 as "silentMs",
      array(${running("run", "device_id")} union all ${running("turn", "holder_id")})::text[] as running
    from presence p where p.org_id = ${device.org_id} and p.device_id = ${device.id}`.execute(db);
  return rows[0];
}

async function noteDuplicate(
  db: Db,
  before: Known,
  { kind, hostName, connectedFrom }: Rival & { connectedFrom: string },
): Promise<void> {
  const { org_id: orgId, id: deviceId } = before;
  const seen = before.duplicate as { hostName: string; seenAt: string } | null;
  const isKnown = seen?.hostName === hostName;
  const sinceMs = isKnown ? Date.now() - Date.parse(seen.seenAt) : Number.POSITIVE_INFINITY;
  if (sinceMs <= duplicateWriteMs) return;
  await transaction(db, async (tx) => {
    await tx
      .updateTable("device")
      .set({ duplicate: JSON.stringify({ hostName, seenAt: new Date().toISOString() }) })
      .where("org_id", "=", orgId)
      .where("id", "=", deviceId)
      .execute();
    if (sinceMs <= duplicateEventMs) return;
    await events.append(tx, orgId, [
      {
        kind: "device.duplicate_refused",
        actor: `device:${deviceId}`,
        deviceId,
        data: { host_name: hostName, connected_from: connectedFrom, rival: kind },
      },
    ]);
  });
}

/** Whether the fingerprint is known and differs from the device's last fingerprint. */
export function isNewMachine(device: Pick<Known, "machine">, machine: Machine | undefined): boolean {
  return machine !== undefined && canonical(device.machine) !== canonical(machine);
}

/** Records the machine of a session about to open. */
export async function noteMachine(
  db: Db,
  before: Pick<Known, "org_id" | "id" | "machine">,
  machine: Machine,
): Promise<void> {
  if (!isNewMachine(before, machine)) return;
  await db
    .updateTable("device")
    .set({ machine: JSON.stringify(machine) })
    .where("org_id", "=", before.org_id)
    .where("id", "=", before.id)
    .execute();
}
