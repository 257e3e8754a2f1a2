import { refuse } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import type { PresenceRow } from "../../pg/schema/schema-work.ts";
import * as events from "../../work/service/events.ts";
import { find, notFound } from "./devices.ts";

/** An open stream: its replica and its epoch. */
export type Session = { replicaId: string; epoch: number };

/** Locks the presence of a device; returns its open session, if any. */
export async function lockSession(
  tx: Db,
  options: { orgId: string; deviceId: string },
): Promise<Session | undefined> {
  const presence = await tx
    .selectFrom("presence")
    .select(["replica_id", "epoch", "connected_at", "disconnected_at"])
    .where("org_id", "=", options.orgId)
    .where("device_id", "=", options.deviceId)
    .forUpdate()
    .executeTakeFirst();
  return presence && openSession(presence);
}

/**
 * Records an operator's request that the device reconnects, with the event
 * `device.disconnect_requested`; returns the stream to end. Refuses with `not_found`, and with
 * `failed_precondition` if the device has no stream.
 */
export function requestDisconnect(
  db: Db,
  options: { orgId: string; deviceId: string; actor: string },
): Promise<Session> {
  const { orgId, deviceId, actor } = options;
  return transaction(db, async (tx) => {
    if (!(await find(tx, options))) notFound(deviceId);
    const presence = await tx
      .selectFrom("presence")
      .select(["replica_id", "epoch", "connected_at", "disconnected_at"])
      .where("org_id", "=", orgId)
      .where("device_id", "=", deviceId)
      .executeTakeFirst();
    const session = presence && openSession(presence);
    if (!session) refuse("failed_precondition", "the device holds no stream");
    await events.append(tx, orgId, [{ kind: "device.disconnect_requested", actor, deviceId }]);
    return session;
  });
}

function openSession(
  presence: Pick<PresenceRow, "replica_id" | "epoch" | "connected_at" | "disconnected_at">,
): Session | undefined {
  const { replica_id: replicaId, epoch } = presence;
  return replicaId && presence.connected_at && !presence.disconnected_at ? { replicaId, epoch } : undefined;
}

/** The devices of a person, locked until the commit, with their streams. */
export async function lockOwnedBy(
  tx: Db,
  options: { orgId: string; userId: string },
): Promise<{ id: string; label: string; session: Session | undefined }[]> {
  const owned = await tx
    .selectFrom("device")
    .select(["id", "label"])
    .where("org_id", "=", options.orgId)
    .where("owner_id", "=", options.userId)
    .orderBy("id")
    .forUpdate()
    .execute();
  if (owned.length === 0) return [];
  const presences = await tx
    .selectFrom("presence")
    .select(["device_id", "replica_id", "epoch", "connected_at", "disconnected_at"])
    .where("org_id", "=", options.orgId)
    .where(
      "device_id",
      "in",
      owned.map((device) => device.id),
    )
    .execute();
  const sessions = new Map(presences.map((presence) => [presence.device_id, openSession(presence)]));
  return owned.map((device) => ({ ...device, session: sessions.get(device.id) }));
}
