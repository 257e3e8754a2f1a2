import { sql } from "kysely";
import { refuse } from "../../errors.ts";
import * as agents from "../agents/agents.ts";
import { healAgent } from "../agents/healing.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import type { Json } from "../pg/schema.ts";
import * as events from "../work/events.ts";
import * as orgMoves from "../work/org-moves.ts";
import * as callers from "./callers.ts";
import * as members from "./members.ts";
import * as requests from "./requests.ts";
import { requireAdmin } from "./roles.ts";
import * as tokens from "./tokens.ts";

/** The org of the first start, owned by the operator. */
export const localOrgId = "local";
/** The default agent of every new org. */
export const defaultAgentId = "pinion-default";

const defaultAgentIdentity = `You are Pinion's default agent. You run on one of your user's own machines, on a schedule or when asked, and nobody watches while you work: what you print is the result.

Do what the prompt asks, with what you find on this machine. Be brief and concrete. If you lack history or context, say so; do not invent.`;

export type Org = { id: string; name: string; defaultAgentId: string | null; createdAt: Date };

/**
 * A server's contribution to default agents: the providers with a key, for example "anthropic",
 * and, with a public URL, its MCP server.
 */
type Providers = { installedProviders: readonly string[]; publicUrl?: string | undefined };

/** The settings of an unchanged default agent. */
function defaultSettings({ installedProviders, publicUrl }: Providers): Json {
  const mcpServers = agents.injectedServers(publicUrl);
  return {
    identity: defaultAgentIdentity,
    ...(mcpServers.length > 0 ? { mcpServers } : {}),
    ...(installedProviders.length > 0 ? { installedProviders: [...installedProviders] } : {}),
  };
}

/** The org. Refuses with `not_found`. */
export async function get(db: Db, options: { orgId: string }): Promise<Org> {
  const org = await db
    .selectFrom("org")
    .select(["id", "name", "default_agent_id as defaultAgentId", "created_at as createdAt"])
    .where("id", "=", options.orgId)
    .executeTakeFirst();
  return org ?? refuse("not_found", `there is no org "${options.orgId}"`);
}

/** At most `limit` orgs by id, after `afterId`. For the operator: reads beyond one org. */
export function list(
  crossOrgDb: Db,
  options: { afterId: string | undefined; limit: number },
): Promise<Org[]> {
  let query = crossOrgDb
    .selectFrom("org")
    .select(["id", "name", "default_agent_id as defaultAgentId", "created_at as createdAt"])
    .orderBy("id")
    .limit(options.limit);
  if (options.afterId !== undefined) query = query.where("id", ">", options.afterId);
  return query.execute();
}

/**
 * On an empty database: creates the org `local`, its owner, the agent `pinion-default` as the org's
 * default, and a token of the owner (read, write, admin), whose secret is returned this once.
 * Undefined if an org exists already, or if another replica was first; the sentinel
 * `metadata.bootstrapped_at` records the creation.
 *
 * `keep` stores the secret for people, before the commit: a start interrupted in between begins
 * anew, and never leaves an org without a token. If `keep` throws, nothing is created.
 */
export function ensureBootstrap(
  db: Db,
  providers: Providers = { installedProviders: [] },
  keep: (secret: string) => void = () => {},
  /** The token's secret, if chosen by the operator. */
  givenSecret?: string,
): Promise<{ orgId: string; userId: string; secret: string } | undefined> {
  return transaction(db, async (tx) => {
    // Of two concurrent replicas, the second waits here for the first's commit and then inserts
    // nothing.
    const { rows } = await sql`
      insert into org (id, name, metadata)
      select ${localOrgId}, 'Local', jsonb_build_object('bootstrapped_at', now())
      where not exists (select from org)
      on conflict (id) do nothing
      returning id`.execute(tx);
    if (rows.length === 0) return undefined;
    const owner = await tx
      .insertInto("user")
      .values({ name: "Owner" })
      .returning("id")
      .executeTakeFirstOrThrow();
    const secret = await furnish(tx, {
      orgId: localOrgId,
      ownerId: owner.id,
      actor: "pinion",
      tokenLabel: "bootstrap",
      givenSecret,
      ...providers,
    });
    keep(secret);
    return { orgId: localOrgId, userId: owner.id, secret };
  });
}

/**
 * Creates an org with its owner, found or created by the email address, its default agent, and a
 * token of the owner (read, write, admin), whose secret is returned this once. The token is valid
 * in the new org alone, which is empty: for a known person it opens nothing that existed before.
 * Refuses with `already_exists`, also for a repeated request id, and like {@link
 * callers.whileGood}.
 */
export function create(
  db: Db,
  options: {
    orgId: string;
    name: string;
    owner: { email: string; name: string };
    actor: string;
    caller: callers.Caller;
    requestId: string;
  } & Providers,
): Promise<{ org: Org; owner: members.Member; secret: string }> {
  const { orgId, name, actor, installedProviders, publicUrl } = options;
  const request = {
    orgId: options.caller.orgId,
    actor,
    rpc: "OrgService/CreateOrg",
    requestId: options.requestId,
  };
  return callers.whileGood(db, options.caller, async (tx, held) => {
    requireAdmin(held.role);
    const made = await requests.begin(tx, request);
    if (made) refuseRepeat(made);
    await requireFreeId(tx, orgId);
    const inserted = await tx
      .insertInto("org")
      .values({ id: orgId, name })
      // A concurrent creator of the same org may not have committed yet: the insert waits.
      .onConflict((conflict) => conflict.doNothing())
      .returning("id")
      .executeTakeFirst();
    if (!inserted) refuse("already_exists", `an org "${orgId}" exists already`, { field: "org_id" });
    const ownerId = await members.ensureUser(tx, options.owner);
    const secret = await furnish(tx, {
      orgId,
      ownerId,
      actor,
      tokenLabel: "owner",
      creatorId: options.caller.userId,
      installedProviders,
      publicUrl,
      beforeEvents: (tokenId) => requests.record(tx, request, { org_id: orgId, token_id: tokenId }),
    });
    return {
      org: await get(tx, { orgId }),
      owner: (await members.find(tx, { orgId, userId: ownerId }))!,
      secret,
    };
  });
}

/** The id of an org that moves, or has moved, is taken: the fence would let no row in. */
async function requireFreeId(tx: Db, orgId: string): Promise<void> {
  const leaving = await orgMoves.find(tx, { orgId });
  if (!leaving) return;
  const where = leaving.cell === undefined ? "and moves between cells" : `in the cell "${leaving.cell}"`;
  refuse("already_exists", `an org "${orgId}" exists already, ${where}`, { field: "org_id" });
}

function refuseRepeat(made: { org_id?: string; token_id?: string }): never {
  refuse(
    "already_exists",
    `an earlier call with this request_id made the org "${made.org_id}", and its owner's token ${made.token_id}, whose ` +
      "secret was shown then and is kept nowhere",
    { field: "request_id" },
  );
}

/**
 * Creates the contents of a new org: its owner, its default agent and the owner's token, with their
 * events.
 */
async function furnish(
  tx: Db,
  options: {
    orgId: string;
    ownerId: string;
    actor: string;
    tokenLabel: string;
    givenSecret?: string | undefined;
    creatorId?: string | null;
    beforeEvents?: (tokenId: string) => Promise<void>;
  } & Providers,
): Promise<string> {
  const { orgId, ownerId, actor } = options;
  await tx.insertInto("member").values({ org_id: orgId, user_id: ownerId, role: "owner" }).execute();
  await agents.ensure(tx, {
    orgId,
    agentId: defaultAgentId,
    name: "Pinion",
    ownerId,
    settings: defaultSettings(options),
  });
  await markDefaultAgent(tx, { orgId, hasProviders: options.installedProviders.length > 0 });
  const { token, secret } = await tokens.issue(tx, {
    orgId,
    kind: "pat",
    label: options.tokenLabel,
    scopes: ["read", "write", "admin"],
    userId: ownerId,
    creatorId: options.creatorId ?? null,
    secret: options.givenSecret,
  });
  await options.beforeEvents?.(token.id);
  await events.append(tx, orgId, [
    { kind: "org.created", actor, data: { owner_id: ownerId, agent_id: defaultAgentId } },
    {
      kind: "token.created",
      actor,
      data: { token_id: token.id, kind: "pat", label: options.tokenLabel, user_id: ownerId },
    },
  ]);
  return secret;
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
    if (rows.length < orgsPerPassMax) return changed.size;
    after = rows.at(-1)!.id;
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

/**
 * The shortest time between two slots of a schedule, in milliseconds, from the org's metadata
 * ("interval_min_ms").
 */
export async function findIntervalMsMin(db: Db, options: { orgId: string }): Promise<number | undefined> {
  const org = await db
    .selectFrom("org")
    .select(sql<unknown>`metadata -> 'interval_min_ms'`.as("value"))
    .where("id", "=", options.orgId)
    .executeTakeFirst();
  return typeof org?.value === "number" && org.value >= 0 ? org.value : undefined;
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
