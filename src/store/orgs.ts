import { sql } from "kysely";
import * as agents from "./agents.ts";
import type { Db } from "./database.ts";
import { transaction } from "./database.ts";
import * as events from "./events.ts";
import * as tokens from "./tokens.ts";

/** The org of a first start. */
export const localOrgId = "local";
/** The agent that every new personal org gets. */
export const defaultAgentId = "pinion-default";

const defaultAgentIdentity = `You are Pinion's default agent. You run on one of your user's own machines, on a schedule or when asked, and nobody watches while you work: what you print is the result.

Do what the prompt asks, with what you find on this machine. Be brief and concrete. If you lack history or context, say so; do not invent.`;

/**
 * On an empty database: the org `local`, its owner, the agent `pinion-default` as the org's default, and a token of
 * the owner (read, write, admin), whose secret is returned this once. Undefined if there was an org already, or if
 * another replica did it first; the sentinel `metadata.bootstrapped_at` says that it was done.
 */
export function ensureBootstrap(
  db: Db,
): Promise<{ orgId: string; userId: string; secret: string } | undefined> {
  return transaction(db, async (tx) => {
    // Of two replicas at once, the second waits here for the first one's commit and then inserts nothing.
    const { rows } = await sql`
      insert into org (id, name, metadata, default_agent_id)
      select ${localOrgId}, 'Local', jsonb_build_object('bootstrapped_at', now()), ${defaultAgentId}
      where not exists (select from org)
      on conflict (id) do nothing
      returning id`.execute(tx);
    if (rows.length === 0) return undefined;
    const owner = await tx
      .insertInto("user")
      .values({ name: "Owner" })
      .returning("id")
      .executeTakeFirstOrThrow();
    await tx.insertInto("member").values({ org_id: localOrgId, user_id: owner.id, role: "owner" }).execute();
    await agents.ensure(tx, {
      orgId: localOrgId,
      agentId: defaultAgentId,
      name: "Pinion",
      ownerId: owner.id,
      settings: { identity: defaultAgentIdentity },
    });
    const { token, secret } = await tokens.issue(tx, {
      orgId: localOrgId,
      kind: "pat",
      label: "bootstrap",
      scopes: ["read", "write", "admin"],
      userId: owner.id,
    });
    await events.append(tx, localOrgId, [
      { kind: "org.created", actor: "pinion", data: { owner_id: owner.id, agent_id: defaultAgentId } },
      {
        kind: "token.created",
        actor: "pinion",
        data: { token_id: token.id, kind: "pat", label: "bootstrap" },
      },
    ]);
    return { orgId: localOrgId, userId: owner.id, secret };
  });
}

/** The agent that stands in where none is named; null if the org has none. */
export async function findDefaultAgentId(db: Db, options: { orgId: string }): Promise<string | null> {
  const org = await db
    .selectFrom("org")
    .select("default_agent_id")
    .where("id", "=", options.orgId)
    .executeTakeFirst();
  return org?.default_agent_id ?? null;
}
