import { refuse } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";
import * as members from "../orgs/members.ts";
import * as rights from "./rights.ts";

/**
 * Locks a device for a pin until the commit: the device is the org's and no fleet worker, its owner
 * is a member, and the caller may use it. Refuses with `not_found`, `failed_precondition` and
 * `permission_denied`; `workerIs`: the refusal for a fleet worker.
 */
export async function requirePinnable(
  tx: Db,
  options: {
    orgId: string;
    deviceId: string;
    field: string;
    workerIs: "not_found" | "failed_precondition";
  },
): Promise<void> {
  const { orgId, deviceId, field, workerIs } = options;
  const isOwned = await holdOwner(tx, { orgId, deviceId });
  const device = await rights.holdDevice(tx, { orgId, deviceId, field });
  if (device.isWorker) {
    refuse(
      workerIs,
      `"${device.label}" is a fleet worker, which takes what is pinned to nobody; leave device_id empty for the fleet`,
      { field },
    );
  }
  if (!isOwned) {
    refuse(
      "failed_precondition",
      `the owner of device "${device.label}" is no member of the org any more; have a member enrol it again`,
      { field },
    );
  }
  await rights.requireStill(tx, { orgId, deviceId, deed: "use" });
}

/**
 * Locks a device and its owner's membership until the commit, in the order of a removal of a
 * member. An edit of a watcher calls this before it locks the watcher, because removals of members
 * and of devices lock the watchers last.
 */
export async function hold(tx: Db, device: { orgId: string; deviceId: string }): Promise<void> {
  await holdOwner(tx, device);
  await rights.lockDevice(tx, device);
}

/** Locks the membership of the device's owner until the commit; false if the owner is no member. */
async function holdOwner(tx: Db, { orgId, deviceId }: { orgId: string; deviceId: string }): Promise<boolean> {
  const device = await tx
    .selectFrom("device")
    .select("owner_id")
    .where("org_id", "=", orgId)
    .where("id", "=", deviceId)
    .executeTakeFirst();
  // Enrolled by a service, which is no member and cannot leave.
  if (!device?.owner_id) return true;
  return members.hold(tx, { orgId, userId: device.owner_id });
}
