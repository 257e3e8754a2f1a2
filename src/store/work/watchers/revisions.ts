import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import type { Json } from "../../pg/schema/schema-columns.ts";

/** The versions of watchers and agents, the newest first. */

const revisionsMax = 100;

export type WatcherRevision = {
  version: number;
  name: string;
  prompt: string;
  extractionSchema: Json | null;
  createdAt: Date;
};

export async function ofWatcher(
  db: Db,
  { orgId, watcherId }: { orgId: string; watcherId: string },
): Promise<WatcherRevision[]> {
  const { rows } = await sql<WatcherRevision>`
    select version, name, prompt, extraction_schema as "extractionSchema", created_at as "createdAt"
    from watcher_revision where org_id = ${orgId} and watcher_id = ${watcherId}
    order by version desc limit ${revisionsMax}`.execute(db);
  return rows;
}

export type AgentRevision = { version: number; name: string; settings: Json; createdAt: Date };

export async function ofAgent(
  db: Db,
  { orgId, agentId }: { orgId: string; agentId: string },
): Promise<AgentRevision[]> {
  const { rows } = await sql<AgentRevision>`
    select version, name, settings, created_at as "createdAt"
    from agent_revision where org_id = ${orgId} and agent_id = ${agentId}
    order by version desc limit ${revisionsMax}`.execute(db);
  return rows;
}
