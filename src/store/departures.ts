import { sql } from "kysely";
import { refuse } from "../errors.ts";
import type { Db } from "./database.ts";
import { transaction } from "./database.ts";
import * as devices from "./devices.ts";
import * as events from "./events.ts";
import * as members from "./members.ts";
import * as runs from "./runs.ts";
import * as watchers from "./watchers.ts";

/** What ends when a person leaves an org. */
export type Departure<Cancelled> = {
  tokenIds: string[];
  watchersUnpinned: number;
  /** What `cancelRuns` said, by device. */
  cancelled: Cancelled[];
  /** Streams that are to be closed. */
  sessions: (devices.Session & { deviceId: string })[];
};

/**
 * Takes a person out of the org, with the event `member.removed`: their tokens and unused join codes end, the watchers
 * pinned to their devices are unpinned and show as no_executor, and the live runs there are ended by `cancelRuns`. The
 * devices stay on the list; nothing can be pinned to them until another member enrols them. Refuses with `not_found`,
 * and with `failed_precondition` for the last owner.
 */
export function remove<Cancelled>(
  db: Db,
  options: { orgId: string; userId: string; actor: string; cancelRuns: devices.CancelRuns<Cancelled> },
): Promise<Departure<Cancelled>> {
  const { orgId, userId, actor } = options;
  return transaction(db, async (tx) => {
    const owners = await members.lockOwners(tx, orgId);
    // The member before the devices, as whoever pins or enrols does: they wait here, and then see that the member left.
    const member = await tx
      .selectFrom("member")
      .select("role")
      .where("org_id", "=", orgId)
      .where("user_id", "=", userId)
      .forUpdate()
      .executeTakeFirst();
    if (!member) refuse("not_found", `there is no member ${userId}`);
    if (owners.length === 1 && owners[0] === userId) members.refuseLastOwner();
    await tx.deleteFrom("member").where("org_id", "=", orgId).where("user_id", "=", userId).execute();
    await tx
      .deleteFrom("join_code")
      .where("org_id", "=", orgId)
      .where("user_id", "=", userId)
      .where("used_at", "is", null)
      .execute();
    const revoked = await tx
      .updateTable("token")
      .set({ revoked_at: sql<Date>`now()` })
      .where("org_id", "=", orgId)
      .where("revoked_at", "is", null)
      .where((eb) =>
        eb.or([
          eb("user_id", "=", userId),
          eb(
            "device_id",
            "in",
            eb.selectFrom("device").select("id").where("org_id", "=", orgId).where("owner_id", "=", userId),
          ),
        ]),
      )
      .returning("id")
      .execute();
    const owned = await devices.lockOwnedBy(tx, { orgId, userId });

    // For all devices: first the runs, then the watchers, as a completion does, so that neither waits for the other.
    for (const { id } of owned) await runs.lockForCancel(tx, { orgId, deviceId: id });
    const unpinned: { watcherId: string; deviceId: string }[] = [];
    for (const { id, label } of owned) {
      const reason = `the owner of device "${label}" left the org`;
      const watcherIds = await watchers.unpinAll(tx, { orgId, deviceId: id, reason });
      unpinned.push(...watcherIds.map((watcherId) => ({ watcherId, deviceId: id })));
    }
    const cancelled: Cancelled[] = [];
    for (const { id } of owned) {
      cancelled.push(
        await options.cancelRuns(tx, { orgId, deviceId: id, reason: "the device's owner left the org" }),
      );
    }
    await events.append(tx, orgId, [
      ...unpinned.map(({ watcherId, deviceId }) => ({
        kind: "watcher.updated",
        actor,
        watcherId,
        deviceId,
        data: { changed: ["device_id"], status: "no_executor" },
      })),
      {
        kind: "member.removed",
        actor,
        data: {
          user_id: userId,
          role: member.role,
          tokens_revoked: revoked.length,
          watchers_unpinned: unpinned.length,
        },
      },
    ]);
    return {
      tokenIds: revoked.map((row) => row.id),
      watchersUnpinned: unpinned.length,
      cancelled,
      sessions: owned.flatMap(({ id, session }) => (session ? [{ ...session, deviceId: id }] : [])),
    };
  });
}
