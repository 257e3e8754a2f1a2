import { sql } from "kysely";
import { refuse } from "../errors.ts";
import type { Db } from "./database.ts";
import type { Json } from "./schema.ts";

/** An agent at one of its versions. `settings` is the protobuf JSON of AgentSettings. */
export type Agent = { id: string; name: string; ownerId: string | null; version: number; settings: Json };

/** The agent at its latest version. Refuses with `not_found`, also for another org's. */
export async function get(db: Db, options: { orgId: string; agentId: string }): Promise<Agent> {
  return (await find(db, options)) ?? refuse("not_found", `there is no agent "${options.agentId}"`);
}

/** The agent at its latest version, if the org has it. */
export function find(db: Db, options: { orgId: string; agentId: string }): Promise<Agent | undefined> {
  return db
    .selectFrom("agent as a")
    .innerJoin("agent_revision as r", (join) =>
      join
        .onRef("r.org_id", "=", "a.org_id")
        .onRef("r.agent_id", "=", "a.id")
        .onRef("r.version", "=", "a.version"),
    )
    .select(["a.id", "a.name", "a.owner_id as ownerId", "a.version", "r.settings"])
    .where("a.org_id", "=", options.orgId)
    .where("a.id", "=", options.agentId)
    .executeTakeFirst();
}

/** The agent as it was at a version (R4). */
export function findRevision(
  db: Db,
  options: { orgId: string; agentId: string; version: number },
): Promise<{ name: string; settings: Json } | undefined> {
  return db
    .selectFrom("agent_revision")
    .select(["name", "settings"])
    .where("org_id", "=", options.orgId)
    .where("agent_id", "=", options.agentId)
    .where("version", "=", options.version)
    .executeTakeFirst();
}

/** Creates the agent and its revision 1 unless the org has one of that id, which stays as it is. True if created. */
export async function ensure(
  db: Db,
  options: { orgId: string; agentId: string; name: string; ownerId: string | null; settings: Json },
): Promise<boolean> {
  const { rows } = await sql`
    with created as (
      insert into agent (org_id, id, name, owner_id)
      values (${options.orgId}, ${options.agentId}, ${options.name}, ${options.ownerId})
      on conflict do nothing
      returning org_id, id, version, name
    )
    insert into agent_revision (org_id, agent_id, version, name, settings)
    select org_id, id, version, name, ${JSON.stringify(options.settings)}::jsonb from created
    returning 1`.execute(db);
  return rows.length > 0;
}
