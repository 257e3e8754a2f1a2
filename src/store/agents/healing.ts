import { sql } from "kysely";
import type { Db } from "../pg/database.ts";

/**
 * Fills in fields of an agent left empty by an older version: the owner and the providers, each
 * only while empty. Providers are filled in only if no revision ever had any, because a person may
 * have emptied them; revisions, unlike events, are kept for ever. The providers become a new
 * version, so that runs keep their settings (R4). Returns the filled fields, and whether the agent
 * exists; the caller appends the event.
 */
export async function healAgent(
  tx: Db,
  options: {
    orgId: string;
    agentId: string;
    ownerId: string | null;
    /** Empty: the providers stay as they are. */
    installedProviders: readonly string[];
  },
): Promise<{ isFound: boolean; filled: string[] }> {
  const { orgId, agentId } = options;
  const locked = await sql<{ owner_id: string | null }>`
    select owner_id from agent where org_id = ${orgId} and id = ${agentId} for update`.execute(tx);
  const agent = locked.rows[0];
  if (!agent) return { isFound: false, filled: [] };
  // A separate statement, to see the writes of a person's transaction that the lock waited for.
  const revised = await sql`
    select from agent_revision
    where org_id = ${orgId} and agent_id = ${agentId}
      and jsonb_array_length(settings -> 'installedProviders') > 0
    limit 1`.execute(tx);
  const hadProviders = revised.rows.length > 0;
  const filled: string[] = [];
  if (agent.owner_id === null && options.ownerId !== null) {
    filled.push("owner_id");
    await sql`
      update agent set owner_id = ${options.ownerId}, updated_at = now()
      where org_id = ${orgId} and id = ${agentId}`.execute(tx);
  }
  if (!hadProviders && options.installedProviders.length > 0) {
    filled.push("installed_providers");
    await sql`
      with healed as (
        update agent set version = version + 1, updated_at = now()
        where org_id = ${orgId} and id = ${agentId}
        returning version
      )
      insert into agent_revision (org_id, agent_id, version, name, settings)
      select r.org_id, r.agent_id, h.version, r.name,
        r.settings || ${JSON.stringify({ installedProviders: options.installedProviders })}::jsonb
      from healed h
        join agent_revision r on r.org_id = ${orgId} and r.agent_id = ${agentId} and r.version = h.version - 1
    `.execute(tx);
  }
  return { isFound: true, filled };
}
