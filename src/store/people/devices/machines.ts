import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import { canonical } from "../../pg/values/canonical.ts";
import * as events from "../../work/service/events.ts";
import type { Known } from "./devices.ts";

/** The machine of a session. Empty hashes are unknown. */
export type Machine = { machineHash: string; bootHash: string; hostName: string; arch: string };

/**
 * Whether two fingerprints belong to different machines: all parts known in both differ. A single
 * changed part is allowed.
 */
export function isOtherMachine(a: Partial<Machine>, b: Partial<Machine>): boolean {
  const known = (["machineHash", "bootHash"] as const).filter((part) => a[part] && b[part]);
  return known.length > 0 && known.every((part) => a[part] !== b[part]);
}

/** Minimum milliseconds between events, and between writes, for the same duplicate machine. */
const duplicateEventMs = 3_600_000;
const duplicateWriteMs = 60_000;

/**
 * The machine with a live session of the device, if different from the hello's machine. The refused
 * machine is recorded on the device, with the event `device.duplicate_refused` at most once an
 * hour. A session without a stream, or silent for the TTL, is not live.
 */
export async function findOtherMachine(
  db: Db,
  before: Known,
  options: { machine: Machine; ttlMs: number },
): Promise<{ hostName: string } | undefined> {
  const { org_id: orgId, id: deviceId } = before;
  const current = before.machine as Partial<Machine>;
  if (!isOtherMachine(current, options.machine)) return undefined;
  const alive = await db
    .selectFrom("presence")
    .select(
      sql<boolean>`disconnected_at is null
      and greatest(last_beat_at, connected_at) > now() - ${options.ttlMs} * interval '1 millisecond'`.as(
        "isAlive",
      ),
    )
    .where("org_id", "=", orgId)
    .where("device_id", "=", deviceId)
    .executeTakeFirst();
  if (!alive?.isAlive) return undefined;
  const seen = before.duplicate as { hostName: string; seenAt: string } | null;
  const isKnown = seen?.hostName === options.machine.hostName;
  const sinceMs = isKnown ? Date.now() - Date.parse(seen.seenAt) : Number.POSITIVE_INFINITY;
  if (sinceMs > duplicateWriteMs) {
    await transaction(db, async (tx) => {
      const duplicate = { hostName: options.machine.hostName, seenAt: new Date().toISOString() };
      await tx
        .updateTable("device")
        .set({ duplicate: JSON.stringify(duplicate) })
        .where("org_id", "=", orgId)
        .where("id", "=", deviceId)
        .execute();
      if (sinceMs <= duplicateEventMs) return;
      await events.append(tx, orgId, [
        {
          kind: "device.duplicate_refused",
          actor: `device:${deviceId}`,
          deviceId,
          data: { host_name: options.machine.hostName, connected_from: current.hostName ?? "" },
        },
      ]);
    });
  }
  return { hostName: current.hostName ?? "" };
}

/** Whether the fingerprint differs from the device's last one; an unknown fingerprint does not. */
export function isNewMachine(device: Known, machine: Machine | undefined): boolean {
  return machine !== undefined && canonical(device.machine) !== canonical(machine);
}

/** Records the machine of a session about to open. */
export async function noteMachine(db: Db, before: Known, machine: Machine): Promise<void> {
  if (!isNewMachine(before, machine)) return;
  await db
    .updateTable("device")
    .set({ machine: JSON.stringify(machine) })
    .where("org_id", "=", before.org_id)
    .where("id", "=", before.id)
    .execute();
}
