import { refuse } from "../errors.ts";
import * as devices from "../store/people/devices.ts";
import * as grants from "../store/people/grants.ts";
import type * as rights from "../store/people/rights.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import * as events from "../store/work/service/events.ts";
import { announceStranded, pauseStranded, type Stranded } from "./stranded.ts";
import type { Surroundings } from "./surroundings.ts";

/**
 * Takes grants on a device back, each with the event `device.grant_revoked`, and pauses the watchers that stand on them.
 * Permissions empty: all of the grantee's. Refuses with `not_found` for a device, or a grant, that is not there.
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
    // The lock waits for a watcher that is being pinned to the device, and is waited for: see rights.requireStill.
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

/** The actors who had one of the grants to read. */
function readersOf(taken: readonly grants.Grant[]): Set<string> | "everyone" {
  const grantees = taken.filter(({ permission }) => permission === "read").map(({ grantee }) => grantee);
  if (grantees.includes("everyone")) return "everyone";
  return new Set(grantees.map(grants.granteeName));
}
