import { sql } from "kysely";
import * as agents from "../../agents/agents.ts";
import { healAgent } from "../../agents/healing.ts";
import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import type { Json } from "../../pg/schema/schema-columns.ts";
import * as events from "../../work/service/events.ts";
import * as members from "./members.ts";

/** The default agent of every new org. */
export const defaultAgentId = "pinion-default";

const defaultAgentIdentity = `You are Pinion's default agent. You run on one of your user's own machines, on a schedule or when asked, and nobody watches while you work: what you print is the result.

Do what the prompt asks, with what you find on this machine. Be brief and concrete. If you lack history or context, say so; do not invent.`;

/**
 * A server's contribution to default agents: the providers with a key, for example "anthropic",
 * and, with a public URL, its MCP server.
 */
export type Providers = { installedProviders: readonly string[]; publicUrl?: string | undefined };

/** The settings of an unchanged default agent. */
function defaultSettings({ installedProviders, publicUrl }: Providers): Json {
  const mcpServers = agents.injectedServers(publicUrl);
  return {
    identity: defaultAgentIdentity,
    ...(mcpServers.length > 0 ? { mcpServers } : {}),
    ...(installedProviders.length > 0 ? { installedProviders: [...installedProviders] } : {}),
  };
}

/** Creates the default agent of a new org. */
export async function ensure(
  tx: Db,
  { orgId, ownerId, ...providers }: { orgId: string; ownerId: string } & Providers,
): Promise<void> {
  const settings = defaultSettings(providers);
  await agents.ensure(tx, { orgId, agentId: defaultAgentId, name: "Pinion", ownerId, settings });
  await markDefaultAgent(tx, { orgId, hasProviders: providers.installedProviders.length > 0 });
}

/**
 * Makes the default agent the org's default, if the org has none, and sets the sentinels of
 * finished provisioning.
 */
async function markDefaultAgent(tx: Db, options: { orgId: string; hasProviders: boolean }): Promise<void> {
  await sql`
    update org set
      default_agent_id = coalesce(default_agent_id, ${defaultAgentId}),
      metadata = metadata || jsonb_build_object('default_agent_at', now())
        || case when ${options.hasProviders} then jsonb_build_object('default_providers_at', now()) else '{}' end
    where id = ${options.orgId}`.execute(tx);
}

/** Orgs per pass of {@link provisionDefaultAgents}; the next pass handles the others. */
const orgsPerPassMax = 500;

/**
 * Gives every org its default agent, once ever (sentinel `metadata.default_agent_at`), and fills in
 * empty fields of an existing default agent of an older version: an owner, and the providers
 * (sentinel `metadata.default_providers_at`), as a new version of the agent. Changes and deletions
 * by people stay. Safe on all replicas at once; returns the number of changed orgs.
 */
export async function provisionDefaultAgents(db: Db, providers: Providers): Promise<number> {
  const changed = new Set<string>();
  for (let after = ""; ; ) {
    const rows = await db
      .selectFrom("org")
      .select("id")
      .where("id", ">", after)
      .where(
        sql<boolean>`(not metadata ? 'default_agent_at'
          or (${providers.installedProviders.length > 0} and not metadata ? 'default_providers_at')
          or exists (select from agent a where a.org_id = org.id and a.id = ${defaultAgentId} and a.owner_id is null))`,
      )
      .orderBy("id")
      .limit(orgsPerPassMax)
      .execute();
    for (const { id } of rows) if (await tend(db, id, providers)) changed.add(id);
    const last = rows.at(-1);
    if (!last || rows.length < orgsPerPassMax) return changed.size;
    after = last.id;
  }
}

/** An org of {@link provisionDefaultAgents}. True if its agent was created or changed. */
function tend(db: Db, orgId: string, providers: Providers): Promise<boolean> {
  const hasProviders = providers.installedProviders.length > 0;
  return transaction(db, async (tx) => {
    // Of two concurrent replicas, the second waits here and sees the writes of the first.
    const org = await tx
      .selectFrom("org")
      .select(["metadata", "default_agent_id"])
      .where("id", "=", orgId)
      .forNoKeyUpdate()
      .executeTakeFirst();
    if (!org) return false;
    const isProvisioned = "default_agent_at" in org.metadata || "bootstrapped_at" in org.metadata;
    const ownerId = await members.findFirstOwner(tx, { orgId });
    if (!isProvisioned && org.default_agent_id === null && ownerId !== null) {
      const isNew = await agents.ensure(tx, {
        orgId,
        agentId: defaultAgentId,
        name: "Pinion",
        ownerId,
        settings: defaultSettings(providers),
      });
      await markDefaultAgent(tx, { orgId, hasProviders: isNew && hasProviders });
      if (isNew) {
        await events.append(tx, orgId, [
          { kind: "agent.created", actor: "pinion", data: { agent_id: defaultAgentId } },
        ]);
        return true;
      }
    } else if (!("default_agent_at" in org.metadata)) {
      await sql`
        update org set metadata = metadata || jsonb_build_object('default_agent_at', now())
        where id = ${orgId}`.execute(tx);
    }
    const healed = await healAgent(tx, {
      orgId,
      agentId: defaultAgentId,
      ownerId,
      installedProviders: "default_providers_at" in org.metadata ? [] : providers.installedProviders,
    });
    if (hasProviders && healed.isFound) {
      await sql`
        update org set metadata = metadata || jsonb_build_object('default_providers_at', now())
        where id = ${orgId}`.execute(tx);
    }
    if (healed.filled.length === 0) return false;
    await events.append(tx, orgId, [
      { kind: "agent.updated", actor: "pinion", data: { agent_id: defaultAgentId, changed: healed.filled } },
    ]);
    return true;
  });
}

/** The org's default agent; null for none. */
export async function findDefaultAgentId(db: Db, options: { orgId: string }): Promise<string | null> {
  const org = await db
    .selectFrom("org")
    .select("default_agent_id")
    .where("id", "=", options.orgId)
    .executeTakeFirst();
  return org?.default_agent_id ?? null;
}

/**
 * Sets the sentinel of the default watcher, once ever; returns the default agent for it. Undefined
 * if the sentinel was set before or the org has no default agent.
 */
export async function takeDefaultWatcher(tx: Db, { orgId }: { orgId: string }): Promise<string | undefined> {
  // "No key": concurrently enrolling devices hold the org's key lock through their foreign keys,
  // and a plain `for update` would deadlock. A writer that waits here sees the sentinel afterwards
  // and gets no row.
  const org = await tx
    .selectFrom("org")
    .select("default_agent_id")
    .where("id", "=", orgId)
    .where("default_agent_id", "is not", null)
    .where(sql<boolean>`not metadata ? 'default_watcher_at'`)
    .forNoKeyUpdate()
    .executeTakeFirst();
  if (!org?.default_agent_id) return undefined;
  await tx
    .updateTable("org")
    .set({ metadata: sql`metadata || jsonb_build_object('default_watcher_at', now())` })
    .where("id", "=", orgId)
    .execute();
  return org.default_agent_id;
}
