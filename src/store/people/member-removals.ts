import { sql } from "kysely";
import { refuse } from "../../errors.ts";
import * as agents from "../agents/agents.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import * as events from "../work/events.ts";
import * as runs from "../work/runs.ts";
import * as stranded from "../work/stranded.ts";
import * as turns from "../work/turns.ts";
import * as watchers from "../work/watchers.ts";
import { type Caller, holdToManage } from "./callers.ts";
import { describe } from "./changes.ts";
import * as devices from "./devices.ts";
import * as members from "./members.ts";
import { requireMayManage } from "./roles.ts";

/** What ends when a person leaves an org. */
export type Departure<Cancelled> = {
  tokenIds: string[];
  /** Services' tokens that the person made, and that are the org's and stay. */
  serviceTokensKept: number;
  agentsHandedOver: number;
  watchersUnpinned: number;
  agentsUnpinned: number;
  /** What `cancelRuns` said, by device. */
  cancelled: Cancelled[];
  /** The person's watchers on other people's devices. */
  paused?: stranded.Stranded;
  /** Streams that are to be closed. */
  sessions: (devices.Session & { deviceId: string })[];
};

/**
 * Takes a person out of the org, with the event `member.removed`: their tokens and unused join codes end, the watchers and agents
 * pinned to their devices are unpinned and show that they have no executor, and the live runs there are ended by `cancelRuns`. The
 * devices stay on the list; nothing can be pinned to them until another member enrols them. The person's agents become the
 * longest-standing owner's, each with the event `agent.updated`. Tokens of services that the person made are the org's and
 * stay, unless `endsServices`. Refuses with `not_found`, with `permission_denied` who may not remove the person (roles.ts),
 * and with `failed_precondition` for the last owner.
 */
export function remove<Cancelled>(
  db: Db,
  options: {
    orgId: string;
    userId: string;
    actor: string;
    /** Null: Pinion itself. */
    caller: Caller | null;
    endsServices: boolean;
    cancelRuns: devices.CancelRuns<Cancelled>;
    /** Pauses the person's watchers on other people's devices; absent: they go on. */
    pausing?: stranded.Pausing;
  },
): Promise<Departure<Cancelled>> {
  const { orgId, userId, actor } = options;
  return transaction(db, async (tx) => {
    // The member before the devices, as whoever pins or enrols does: they wait here, and then see that the member left.
    const { owners, target: role, held } = await holdToManage(tx, options);
    if (!role) refuse("not_found", `there is no member ${userId}`);
    requireMayManage(held.role, { from: role, to: undefined });
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
          ...(options.endsServices ? [eb("creator_id", "=", userId).and("kind", "=", "svc")] : []),
          eb(
            "device_id",
            "in",
            eb.selectFrom("device").select("id").where("org_id", "=", orgId).where("owner_id", "=", userId),
          ),
        ]),
      )
      .returning("id")
      .execute();
    const serviceTokensKept = await countServiceTokens(tx, { orgId, userId });
    const handedOver = await handAgentsOver(tx, { orgId, userId });
    const owned = await devices.lockOwnedBy(tx, { orgId, userId });

    // For all devices: first the runs, then the watchers, as a completion does, so that neither waits for the other.
    for (const { id } of owned) await runs.lockForCancel(tx, { orgId, deviceId: id });
    for (const { id } of owned) await turns.lockOfDevice(tx, { orgId, deviceId: id });
    const unpinned: { watcherId: string; deviceId: string }[] = [];
    const agentEvents: Omit<events.NewEvent, "orgId">[] = [];
    for (const { id, label } of owned) {
      const reason = `the owner of device "${label}" left the org`;
      const watcherIds = await watchers.unpinAll(tx, { orgId, deviceId: id, reason });
      unpinned.push(...watcherIds.map((watcherId) => ({ watcherId, deviceId: id })));
      agentEvents.push(...(await agents.unpinAll(tx, { orgId, deviceId: id, reason, actor })));
    }
    const paused =
      options.pausing &&
      (await stranded.pauseAll(tx, { orgId, actor, of: { sponsor: `user:${userId}` }, ...options.pausing }));
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
        data: { ...describe({ device_id: deviceId }, { device_id: null }), status: "no_executor" },
      })),
      ...handedOver.map(({ agentId, ownerId }) => ({
        kind: "agent.updated",
        actor,
        data: { agent_id: agentId, ...describe({ owner_id: userId }, { owner_id: ownerId }) },
      })),
      ...agentEvents,
      {
        kind: "member.removed",
        actor,
        data: {
          user_id: userId,
          role,
          tokens_revoked: revoked.length,
          service_tokens_kept: serviceTokensKept,
          agents_handed_over: handedOver.length,
          watchers_unpinned: unpinned.length,
        },
      },
    ]);
    return {
      tokenIds: revoked.map((row) => row.id),
      serviceTokensKept,
      agentsHandedOver: handedOver.length,
      watchersUnpinned: unpinned.length,
      agentsUnpinned: agentEvents.length,
      cancelled,
      ...(paused ? { paused } : {}),
      sessions: owned.flatMap(({ id, session }) => (session ? [{ ...session, deviceId: id }] : [])),
    };
  });
}

/** Tokens of services that the person made and that are good. */
async function countServiceTokens(tx: Db, options: { orgId: string; userId: string }): Promise<number> {
  const row = await tx
    .selectFrom("token")
    .select((eb) => eb.fn.countAll<number>().as("count"))
    .where("org_id", "=", options.orgId)
    .where("creator_id", "=", options.userId)
    .where("kind", "=", "svc")
    .where("revoked_at", "is", null)
    .where(sql<boolean>`coalesce(expires_at > now(), true)`)
    .executeTakeFirstOrThrow();
  return Number(row.count);
}

/** Makes the person's agents the longest-standing owner's. */
async function handAgentsOver(
  tx: Db,
  options: { orgId: string; userId: string },
): Promise<{ agentId: string; ownerId: string | null }[]> {
  const ownerId = await members.findFirstOwner(tx, options);
  const rows = await tx
    .updateTable("agent")
    .set({ owner_id: ownerId, updated_at: sql<Date>`now()` })
    .where("org_id", "=", options.orgId)
    .where("owner_id", "=", options.userId)
    .returning("id")
    .execute();
  return rows.map(({ id }) => ({ agentId: id, ownerId }));
}
