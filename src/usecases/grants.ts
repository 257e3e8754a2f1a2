import { refuse } from "../errors.ts";
import * as devices from "../store/people/devices/devices.ts";
import * as grants from "../store/people/devices/grants.ts";
import type * as rights from "../store/people/devices/rights.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import * as events from "../store/work/service/events.ts";
import { announceStranded, pauseStranded, type Stranded } from "./stranded.ts";
import type { Surroundings } from "./surroundings.ts";

/**
 * Revokes grants on a device, each with the event `device.grant_revoked`, and pauses the watchers
 * that need them. Without permissions, all grants of the grantee are revoked. Refuses with
 * `not_found` a missing device and a missing grant.
 */
export async function revoke(
  db: Db,
  options: {
    orgId: string;
    deviceId: string;
    grantee: grants.Grantee;
    permissions: readonly rights.Permission[];
    actor: string;
  },
  surroundings: Surroundings,
): Promise<{ taken: grants.Grant[]; stranded: Stranded }> {
  const { orgId, deviceId, actor } = options;
  const revoked = await transaction(db, async (tx) => {
    // The lock waits for a transaction that pins a watcher to the device; later pins wait for this
    // lock (rights.requireStill).
    if (!(await devices.lock(tx, { orgId, deviceId }))) {
      refuse("not_found", `there is no device ${deviceId}`, { field: "device_id" });
    }
    const taken = await grants.takeBack(tx, options);
    if (taken.length === 0) {
      refuse(
        "not_found",
        "there is no such grant on the device; pinion devices grants lists those that are",
        { field: "grantee" },
      );
    }
    const stranded = await pauseStranded(
      tx,
      { orgId, actor, of: { deviceId, readers: readersOf(taken) } },
      surroundings,
    );
    await events.append(tx, orgId, grants.revokedEvents(taken, actor));
    return { taken, stranded };
  });
  announceStranded(surroundings, revoked.stranded);
  return revoked;
}

/** The actors with one of the revoked grants to read. */
function readersOf(taken: readonly grants.Grant[]): Set<string> | "everyone" {
  const grantees = taken.filter(({ permission }) => permission === "read").map(({ grantee }) => grantee);
  if (grantees.includes("everyone")) return "everyone";
  return new Set(grantees.map(grants.granteeName));
}
