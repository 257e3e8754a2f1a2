import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";

/**
 * Restores turns that the database lost in a failover to a standby that lagged, while their workers
 * have the replies. A restored turn has ended without a reply: its reply is late (late-replies.ts),
 * and never a second reply of the conversation.
 */

export type ForgottenTurn = {
  orgId: string;
  deviceId: string;
  turnId: string;
  attemptToken: string;
  attempt: number;
  agentId: string;
  conversationId: string;
  messageId: string;
  /** The beginning of the message. */
  input: string;
  inputSha256: Uint8Array;
  isGated: boolean;
};

const reason = "forgotten by the database in a failover; its worker still had the reply";

/** The agent, if its turns are the worker's (R6). */
async function findAgent(
  tx: Db,
  { orgId, deviceId, agentId }: ForgottenTurn,
  lock: RawBuilder<unknown>,
): Promise<{ version: number } | undefined> {
  const { rows } = await sql<{ version: number }>`
    select a.version from agent a join device d on d.org_id = a.org_id and d.id = ${deviceId}
    where a.org_id = ${orgId} and a.id = ${agentId} and (a.device_id = d.id or (a.device_id is null and d.is_worker))
    ${lock}`.execute(tx);
  return rows[0];
}

/** The agent, locked after the turn, as in a removal of a device. */
async function lockAgent(tx: Db, forgotten: ForgottenTurn): Promise<{ version: number } | undefined> {
  const { orgId, turnId, agentId } = forgotten;
  if (!(await findAgent(tx, forgotten, sql``))) return undefined;
  await sql`select from turn where org_id = ${orgId} and id = ${turnId} and agent_id = ${agentId} for update`.execute(
    tx,
  );
  return findAgent(tx, forgotten, sql`for share of a`);
}

/**
 * Restores an attempt, and its turn if necessary. Returns whether the attempt is known now: false
 * if the agent is gone, or if its turns are not the worker's (R6).
 */
export async function restoreTurn(tx: Db, forgotten: ForgottenTurn): Promise<boolean> {
  const { orgId, deviceId, turnId, attemptToken, attempt, agentId, conversationId, messageId } = forgotten;
  const agent = await lockAgent(tx, forgotten);
  if (!agent) return false;
  // Later than what the holder of the turn's lock wrote meanwhile, which began after this
  // transaction.
  const entry = sql`jsonb_build_array(jsonb_build_object('attempt', ${attempt}::int, 'token', ${attemptToken}::text,
    'holder_id', ${deviceId}::text, 'ended_at', clock_timestamp(), 'reason', ${reason}::text))`;
  // The database knows the turn, from before the attempt.
  for (const table of ["turn", "turn_finished"]) {
    const { rows } = await sql`
      update ${sql.table(table)} t
      set past_attempts = case
        when t.attempt_token is not distinct from ${attemptToken}::uuid
          or exists (select from jsonb_array_elements(t.past_attempts) e where e->>'token' = ${attemptToken}::text)
          then t.past_attempts
        else t.past_attempts || ${entry} end
      where t.org_id = ${orgId} and t.id = ${turnId} and t.agent_id = ${agentId}
      returning 1
    `.execute(tx);
    if (rows.length > 0) return true;
  }
  if (conversationId !== "") {
    await sql`
      insert into conversation (org_id, agent_id, id) values (${orgId}, ${agentId}, ${conversationId})
      on conflict do nothing
    `.execute(tx);
  }
  // The sender may have sent the message again: then the message names the later turn.
  await sql`
    insert into turn_message (org_id, agent_id, conversation_id, message_id, turn_id, input_sha256)
    values (${orgId}, ${agentId}, ${conversationId}, ${messageId}, ${turnId}, ${Buffer.from(forgotten.inputSha256)})
    on conflict do nothing
  `.execute(tx);
  await sql`
    insert into turn_finished (org_id, id, agent_id, agent_version, conversation_id, message_id, device_id, agent_kind,
      input, is_gated, timeout_ms, created_at, start_deadline_at, status, attempt, attempt_token, holder_id, claimed_at,
      reason, is_retryable, is_reported, reply, is_reply_truncated, signal)
    values (${orgId}, ${turnId}, ${agentId}, ${agent.version}, ${conversationId}, ${messageId}, ${deviceId}, '',
      ${forgotten.input}, ${forgotten.isGated}, 0, now(), now(), 'failed', ${attempt}, ${attemptToken}, ${deviceId}, now(),
      ${reason}, true, false, '', false, '')
  `.execute(tx);
  return true;
}
