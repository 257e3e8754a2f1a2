import { refuse } from "../../errors.ts";
import * as grants from "../people/grants.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import * as events from "./events.ts";
import * as stranded from "./stranded.ts";

/**
 * Takes grants on a device back, each with the event `device.grant_revoked`, and pauses what stands on them (stranded.ts).
 * Permissions empty: all of the grantee's. Refuses with `not_found` for a device, or a grant, that is not there.
 */
export function revoke(
  db: Db,
  options: {
    orgId: string;
    deviceId: string;
    grantee: grants.Grantee;
    permissions: readonly grants.Permission[];
    actor: string;
  } & stranded.Pausing,
): Promise<{ taken: grants.Grant[]; stranded: stranded.Stranded }> {
  const { orgId, deviceId, actor } = options;
  return transaction(db, async (tx) => {
    // Waits for whoever is pinning a watcher to it, and is waited for: see grants.requireStill.
    const device = await tx
      .selectFrom("device")
      .select("id")
      .where("org_id", "=", orgId)
      .where("id", "=", deviceId)
      .forUpdate()
      .executeTakeFirst();
    if (!device) refuse("not_found", `there is no device ${deviceId}`, { field: "device_id" });
    const taken = await grants.takeBack(tx, options);
    if (taken.length === 0) {
      refuse(
        "not_found",
        "there is no such grant on the device; pinion devices grants lists those that are",
        {
          field: "grantee",
        },
      );
    }
    const paused = await stranded.pauseAll(tx, { ...options, of: { deviceId } });
    await events.append(tx, orgId, grants.revokedEvents(taken, actor));
    return { taken, stranded: paused };
  });
}
