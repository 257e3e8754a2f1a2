import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import { canonical } from "../../pg/values/canonical.ts";
import * as events from "../../work/service/events.ts";
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
/** Part of the TTL within which a received heartbeat is written; see the presence writer. */
const writtenPartOfTtl = 1 / 6;

/**
 * The live session that forbids a new session. `machine`: it is of another machine. `daemon`: it is
 * of another daemon of the machine, which was alive together with the new one. `perhaps_ended`: it
 * is of another daemon that was not heard of since the new daemon's start, and may have been killed.
 */
export type Rival = { hostName: string; kind: "machine" | "daemon" | "perhaps_ended" };

/**
 * Finds the rival of a hello. A duplicate is recorded on the device, with the event
 * `device.duplicate_refused` at most once an hour. A session without a stream, or silent for the
 * TTL, is not live. `daemonAgeMs`: undefined if unknown.
 */
export async function findRival(
  db: Db,
  before: Known,
  options: { machine: Machine; daemonAgeMs: number | undefined; ttlMs: number },
): Promise<Rival | undefined> {
  const current = before.machine as Partial<Machine>;
  const { machine, ttlMs, daemonAgeMs = 0 } = options;
  const isElsewhere = isOtherMachine(current, machine);
  if (!isElsewhere && !isOtherDaemon(current, machine)) return undefined;
  const silentMs = await silenceOf(db, before);
  if (silentMs === undefined || silentMs >= ttlMs) return undefined;
  const hostName = current.hostName ?? "";
  if (!isElsewhere && silentMs + ttlMs * writtenPartOfTtl >= daemonAgeMs) {
    return { hostName, kind: "perhaps_ended" };
  }
  await noteDuplicate(db, before, { hostName: machine.hostName, connectedFrom: hostName });
  return { hostName, kind: isElsewhere ? "machine" : "daemon" };
}

/** Milliseconds since the last sign of life of the device's open session; undefined: it has none. */
async function silenceOf(db: Db, device: Known): Promise<number | undefined> {
  const found = await db
    .selectFrom("presence")
    .select(
      sql<number>`extract(epoch from now() - greatest(last_beat_at, connected_at))::float8 * 1000`.as("ms"),
    )
    .where("org_id", "=", device.org_id)
    .where("device_id", "=", device.id)
    .where("disconnected_at", "is", null)
    .executeTakeFirst();
  return found?.ms;
}

async function noteDuplicate(
  db: Db,
  before: Known,
  { hostName, connectedFrom }: { hostName: string; connectedFrom: string },
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
        data: { host_name: hostName, connected_from: connectedFrom },
      },
    ]);
  });
}

/** Whether the fingerprint differs from the device's last one; an unknown fingerprint does not. */
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
