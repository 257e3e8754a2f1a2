import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import { type Db, transaction } from "../../pg/database.ts";
import * as events from "../service/events.ts";

/**
 * Conversations as people read and delete them. Their leases and snapshots: turn-attempts.ts,
 * turn-settlements.ts.
 */

export type ConversationRow = {
  id: string;
  agentId: string;
  snapshotVersion: number;
  snapshotBytes: number;
  activeTurnId: string | null;
  turnsWaiting: number;
  createdAt: Date;
  lastTurnAt: Date;
};

const columns = sql`
  c.id, c.agent_id as "agentId", c.snapshot_version as "snapshotVersion",
  coalesce(octet_length(c.snapshot), 0) as "snapshotBytes", c.lease_turn_id as "activeTurnId",
  (select count(*) from turn t where t.org_id = c.org_id and t.agent_id = c.agent_id and t.conversation_id = c.id
    and t.status = 'pending')::int as "turnsWaiting",
  c.created_at as "createdAt", c.last_turn_at as "lastTurnAt"`;

function notFound(conversationId: string): never {
  refuse("not_found", `there is no conversation "${conversationId}"`);
}

/**
 * A conversation of the org, with its snapshot on request. Refuses with `not_found`, also for
 * another org's conversation.
 */
export async function get(
  db: Db,
  options: { orgId: string; conversationId: string; withSnapshot: boolean },
): Promise<ConversationRow & { snapshot: Buffer | null }> {
  const { rows } = await sql<ConversationRow & { snapshot: Buffer | null }>`
    select ${columns}, case when ${options.withSnapshot} then c.snapshot end as snapshot
    from conversation c where c.org_id = ${options.orgId} and c.id = ${options.conversationId}
  `.execute(db);
  return rows[0] ?? notFound(options.conversationId);
}

/** Conversations of the org by id, at most `limit`; after `afterId` if given. */
export async function list(
  db: Db,
  options: {
    orgId: string;
    agentId?: string | undefined;
    afterId?: string | undefined;
    limit: number;
  },
): Promise<ConversationRow[]> {
  const where = [sql`c.org_id = ${options.orgId}`];
  if (options.agentId) where.push(sql`c.agent_id = ${options.agentId}`);
  if (options.afterId !== undefined) where.push(sql`c.id > ${options.afterId}`);
  const { rows } = await sql<ConversationRow>`
    select ${columns} from conversation c where ${sql.join(where, sql` and `)} order by c.id limit ${options.limit}
  `.execute(db);
  return rows;
}

/**
 * Deletes a conversation with its messages and replies, with the event `conversation.deleted`;
 * turns started meanwhile wait, and then start a new conversation. While a turn is live, returns
 * that turn and deletes nothing: a claim may have passed the turn by while its conversation was
 * locked here, so the caller rings. Refuses with `not_found`.
 */
export function remove(
  db: Db,
  options: { orgId: string; conversationId: string; actor: string },
): Promise<{ turnId: string; deviceId: string | null } | undefined> {
  const { orgId, conversationId, actor } = options;
  return transaction(db, async (tx) => {
    const { rows } = await sql<{ agentId: string }>`
      select agent_id as "agentId" from conversation where org_id = ${orgId} and id = ${conversationId} for update
    `.execute(tx);
    const [conversation] = rows;
    if (!conversation) notFound(conversationId);
    const ofIt = sql`org_id = ${orgId} and agent_id = ${conversation.agentId} and conversation_id = ${conversationId}`;
    const { rows: live } = await sql<{ turnId: string; deviceId: string | null }>`
      select id as "turnId", device_id as "deviceId" from turn where ${ofIt} order by seq limit 1`.execute(
      tx,
    );
    if (live[0]) return live[0];
    await sql`delete from late_result where org_id = ${orgId} and kind = 'turn'
      and subject_id in (select id from turn_finished where ${ofIt})`.execute(tx);
    await sql`delete from turn_finished where ${ofIt}`.execute(tx);
    await sql`delete from turn_message where ${ofIt}`.execute(tx);
    await sql`
      delete from conversation where org_id = ${orgId} and agent_id = ${conversation.agentId} and id = ${conversationId}
    `.execute(tx);
    await events.append(tx, orgId, [
      {
        kind: "conversation.deleted",
        actor,
        data: { conversation_id: conversationId, agent_id: conversation.agentId },
      },
    ]);
    return undefined;
  });
}
