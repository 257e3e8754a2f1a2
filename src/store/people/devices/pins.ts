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
  // The member before the device, as in a removal of a member, to prevent a deadlock.
  const owner = await tx
    .selectFrom("device")
    .select("owner_id")
    .where("org_id", "=", orgId)
    .where("id", "=", deviceId)
    .executeTakeFirst();
  const isOwned = owner?.owner_id
    ? await members.hold(tx, { orgId, userId: owner.owner_id })
    : // Enrolled by a service, which is no member and cannot leave.
      true;
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
