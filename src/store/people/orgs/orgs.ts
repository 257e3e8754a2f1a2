import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import * as events from "../../work/service/events.ts";
import * as orgMoves from "../../work/service/org-moves.ts";
import * as callers from "../credentials/callers.ts";
import { requireAdmin } from "../credentials/roles.ts";
import * as tokens from "../credentials/tokens.ts";
import * as requests from "../requests.ts";
import * as defaultAgents from "./default-agents.ts";
import * as members from "./members.ts";

/** The org of the first start, owned by the operator. */
export const localOrgId = "local";

export type Org = { id: string; name: string; defaultAgentId: string | null; createdAt: Date };

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
  providers: defaultAgents.Providers = { installedProviders: [] },
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
  } & defaultAgents.Providers,
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
  } & defaultAgents.Providers,
): Promise<string> {
  const { orgId, ownerId, actor } = options;
  await tx.insertInto("member").values({ org_id: orgId, user_id: ownerId, role: "owner" }).execute();
  const { installedProviders, publicUrl } = options;
  await defaultAgents.ensure(tx, { orgId, ownerId, installedProviders, publicUrl });
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
    { kind: "org.created", actor, data: { owner_id: ownerId, agent_id: defaultAgents.defaultAgentId } },
    {
      kind: "token.created",
      actor,
      data: { token_id: token.id, kind: "pat", label: options.tokenLabel, user_id: ownerId },
    },
  ]);
  return secret;
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
