import { sql } from "kysely";
import { refuse } from "../../errors.ts";
import { describe } from "../people/changes.ts";
import { requirePinnable } from "../people/devices/pins.ts";
import * as members from "../people/orgs/members.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import type { Json } from "../pg/schema/schema-columns.ts";
import * as events from "../work/service/events.ts";
import * as platforms from "./platforms.ts";

/** An agent in its latest version. `settings` is the protobuf JSON of AgentSettings. */
export type Agent = {
  id: string;
  name: string;
  ownerId: string | null;
  version: number;
  settings: Json;
  isDefault: boolean;
  /** The pinned device of the agent's turns; null: fleet workers take them. */
  deviceId: string | null;
  /**
   * The reason why no device takes the agent's turns: the pinned device was removed. Empty: turns
   * are taken.
   */
  noExecutorReason: string;
  createdAt: Date;
  updatedAt: Date;
};

export type Named = { orgId: string; agentId: string };

/**
 * The MCP servers that Pinion injects into an agent, in the form of its settings; none without a
 * public URL.
 */
export function injectedServers(
  publicUrl: string | undefined,
): { name: string; url: string; isInjected: true }[] {
  if (publicUrl === undefined) return [];
  return [{ name: "pinion", url: `${publicUrl.replace(/\/+$/, "")}/mcp`, isInjected: true }];
}

function select(db: Db, orgId: string) {
  return db
    .selectFrom("agent as a")
    .innerJoin("agent_revision as r", (join) =>
      join
        .onRef("r.org_id", "=", "a.org_id")
        .onRef("r.agent_id", "=", "a.id")
        .onRef("r.version", "=", "a.version"),
    )
    .innerJoin("org as o", "o.id", "a.org_id")
    .select(["a.id", "a.name", "a.owner_id as ownerId", "a.version", "r.settings"])
    .select(["a.device_id as deviceId", "a.no_executor_reason as noExecutorReason"])
    .select(["a.created_at as createdAt", "a.updated_at as updatedAt"])
    .select(sql<boolean>`coalesce(o.default_agent_id = a.id, false)`.as("isDefault"))
    .where("a.org_id", "=", orgId);
}

/** The agent in its latest version. Refuses with `not_found`, also for another org's agent. */
export async function get(db: Db, options: Named): Promise<Agent> {
  return (await find(db, options)) ?? notFound(options.agentId);
}

/** The agent in its latest version; undefined if the org has no such agent. */
export function find(db: Db, options: Named): Promise<Agent | undefined> {
  return select(db, options.orgId).where("a.id", "=", options.agentId).executeTakeFirst();
}

function notFound(agentId: string): never {
  refuse("not_found", `there is no agent "${agentId}"`);
}

/** The org's agents by id, at most `limit`; after `afterId` if given. */
export function list(
  db: Db,
  options: { orgId: string; limit: number; afterId?: string | undefined },
): Promise<Agent[]> {
  let query = select(db, options.orgId).orderBy("a.id").limit(options.limit);
  if (options.afterId !== undefined) query = query.where("a.id", ">", options.afterId);
  return query.execute();
}

/**
 * Creates the agent and its first revision; an existing agent of the same id stays unchanged. True
 * if created. A reused id continues the version numbers: earlier runs keep pointing at the earlier
 * revisions (R4).
 */
export async function ensure(
  db: Db,
  options: Named & { name: string; ownerId: string | null; settings: Json },
): Promise<boolean> {
  const { orgId, agentId } = options;
  const { rows } = await sql`
    with created as (
      insert into agent (org_id, id, name, owner_id, version)
      select ${orgId}, ${agentId}, ${options.name}, ${options.ownerId}::uuid, 1 + coalesce(max(version), 0)
      from agent_revision where org_id = ${orgId} and agent_id = ${agentId}
      on conflict do nothing
      returning org_id, id, version, name
    )
    insert into agent_revision (org_id, agent_id, version, name, settings)
    select org_id, id, version, name, ${JSON.stringify(options.settings)}::jsonb from created
    returning 1`.execute(db);
  return rows.length > 0;
}

/**
 * {@link ensure} for a caller, with the event `agent.created`; returns the agent afterwards.
 * Refuses with `not_found` an owner outside of the org, and with `aborted` if another call removed
 * the agent meanwhile.
 */
export function create(
  db: Db,
  options: Named & { name: string; ownerId: string | null; settings: Json; actor: string; isDryRun: boolean },
): Promise<{ agent: Agent; isCreated: boolean }> {
  const { orgId, agentId, ownerId } = options;
  return transaction(db, async (tx) => {
    if (options.isDryRun) {
      const existing = await find(tx, options);
      if (existing) return { agent: existing, isCreated: false };
      await requireOwner(tx, { orgId, ownerId });
      return { agent: draftOf(options), isCreated: true };
    }
    await requireOwner(tx, { orgId, ownerId });
    const isCreated = await ensure(tx, options);
    const agent = await find(tx, options);
    if (!agent) refuse("aborted", "the agent was deleted meanwhile; do it again", { retryAfterMs: 0 });
    if (isCreated) {
      await events.append(tx, orgId, [
        {
          kind: "agent.created",
          actor: options.actor,
          data: { agent_id: agentId, name: agent.name, owner_id: ownerId, version: agent.version },
        },
      ]);
    }
    return { agent, isCreated };
  });
}

function draftOf(options: Named & { name: string; ownerId: string | null; settings: Json }): Agent {
  const { agentId: id, name, ownerId, settings } = options;
  const now = new Date();
  const unset = { isDefault: false, deviceId: null, noExecutorReason: "" };
  return { id, name, ownerId, version: 1, settings, ...unset, createdAt: now, updatedAt: now };
}

export async function requireOwner(
  tx: Db,
  options: { orgId: string; ownerId: string | null },
): Promise<void> {
  const { orgId, ownerId } = options;
  if (ownerId === null || (await members.hold(tx, { orgId, userId: ownerId }))) return;
  refuse("not_found", "the owner is no member of the org", { field: "owner_id" });
}

/** A fleet worker belongs to no person, and counts as not found here. */
export async function requireDevice(
  tx: Db,
  options: { orgId: string; deviceId: string | null },
): Promise<void> {
  const { orgId, deviceId } = options;
  if (deviceId === null) return;
  await requirePinnable(tx, { orgId, deviceId, field: "device_id", workerIs: "not_found" });
}

/**
 * Unpins the agents of a device that is removed, in the caller's transaction. Their turns go to no
 * device until a person decides about the pin, because a pin does not imply consent to the fleet.
 * Returns their events, `agent.updated`.
 */
export async function unpinAll(
  tx: Db,
  options: { orgId: string; deviceId: string; reason: string; actor: string },
): Promise<Omit<events.NewEvent, "orgId">[]> {
  const { orgId, deviceId, reason, actor } = options;
  const rows = await tx
    .updateTable("agent")
    .set({ device_id: null, no_executor_reason: reason, updated_at: sql<Date>`now()` })
    .where("org_id", "=", orgId)
    .where("device_id", "=", deviceId)
    .returning("id")
    .execute();
  return rows.map(({ id }) => ({
    kind: "agent.updated",
    actor,
    deviceId,
    data: {
      agent_id: id,
      ...describe(
        { device_id: deviceId, no_executor_reason: "" },
        { device_id: null, no_executor_reason: reason },
      ),
    },
  }));
}

/**
 * Removes an agent and its platforms, with the events `platform.deleted` and `agent.deleted`. Its
 * revisions stay for the runs that refer to them, its watchers for a later agent of the same id.
 * Returns the platforms, to be stopped. Refuses with `not_found`, and `failed_precondition` for the
 * org's default agent.
 */
export function remove(
  db: Db,
  options: Named & { actor: string },
): Promise<{ platforms: platforms.Platform[] }> {
  const { orgId, agentId } = options;
  return transaction(db, async (tx) => {
    await lock(tx, options);
    const agent = await get(tx, options);
    if (agent.isDefault) {
      refuse(
        "failed_precondition",
        `"${agentId}" is the org's default agent; make another one the default first`,
      );
    }
    const removed = await platforms.removeAllOfAgent(tx, options);
    await tx.deleteFrom("agent").where("org_id", "=", orgId).where("id", "=", agentId).execute();
    await events.append(tx, orgId, [
      ...removed.map((platform) => platforms.deletedEvent(platform, options.actor)),
      { kind: "agent.deleted", actor: options.actor, data: { agent_id: agentId, name: agent.name } },
    ]);
    return { platforms: removed };
  });
}

/** Locks the agent's row, so that changes are serialized. Refuses with `not_found`. */
export async function lock(tx: Db, options: Named): Promise<void> {
  const row = await tx
    .selectFrom("agent")
    .select("id")
    .where("org_id", "=", options.orgId)
    .where("id", "=", options.agentId)
    .forUpdate()
    .executeTakeFirst();
  if (!row) notFound(options.agentId);
}

/** Makes a person's agents another owner's; answers their ids. Events are the caller's. */
export async function handOver(
  tx: Db,
  options: { orgId: string; from: string; to: string | null },
): Promise<string[]> {
  const rows = await tx
    .updateTable("agent")
    .set({ owner_id: options.to, updated_at: sql<Date>`now()` })
    .where("org_id", "=", options.orgId)
    .where("owner_id", "=", options.from)
    .returning("id")
    .execute();
  return rows.map(({ id }) => id);
}
