import { createHash } from "node:crypto";
import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import { type Db, transaction } from "../../pg/database.ts";
import { onlyRow } from "../../pg/only-row.ts";

/**
 * Turns for their starters and readers, and requests to end turns. turn-settlements.ts ends turns.
 */

export type LiveTurnStatus = "pending" | "claimed" | "running";
export type FinishedTurnStatus = "completed" | "failed" | "timeout" | "cancelled";

export type TurnRow = {
  orgId: string;
  id: string;
  agentId: string;
  agentVersion: number;
  conversationId: string;
  messageId: string;
  runId: string | null;
  deviceId: string | null;
  agentKind: string;
  input: string;
  isGated: boolean;
  timeoutMs: number;
  createdAt: Date;
  startDeadlineAt: Date;
  status: LiveTurnStatus | FinishedTurnStatus;
  attempt: number;
  holderId: string | null;
  claimedAt: Date | null;
  startedAt: Date | null;
  lastBeatAt: Date | null;
  deadlineAt: Date | null;
  expiresAt: Date | null;
  cancelRequestedAt: Date | null;
  reason: string;
  finishedAt: Date | null;
  isRetryable: boolean;
  reply: string;
  isReplyTruncated: boolean;
  exitCode: number | null;
  signal: string;
  durationMs: number | null;
  snapshotVersion: number | null;
  /** The end of the output of a program that left no reply. */
  outputTail: string;
};

/** Maximum waiting turns of a conversation. Quotas limit the turns of an org. */
export const turnsPerConversationMax = 100;
/** Milliseconds until a caller beyond the maximum should try again. */
const fullRetryMs = 5_000;

export type NewTurn = {
  orgId: string;
  agentId: string;
  /** Empty for a turn without a conversation, which is never gated. */
  conversationId: string;
  messageId: string;
  runId: string | null;
  agentKind: string;
  input: string;
  /** The turn takes the conversation's lease, reads its snapshot and writes the next snapshot. */
  isGated: boolean;
  timeoutMs: number;
  startTimeoutMs: number;
  /** The agent session to continue, and its device. */
  resume?: { sessionId: string; runId: string; deviceId: string } | undefined;
};

export type ArmedTurn = { turnId: string; deviceId: string | null; isNew: boolean };

/**
 * Arms a turn: message, conversation and marker are written together, or not at all. For a message
 * armed before, returns its turn. Refuses with `not_found` (agent), `failed_precondition` (its
 * device is gone), `already_exists` (another input) and `resource_exhausted`. `within` runs in the
 * transaction of a new turn.
 */
export function arm(
  db: Db,
  turn: NewTurn,
  within?: (tx: Db, turnId: string) => Promise<void>,
): Promise<ArmedTurn> {
  const sha256 = createHash("sha256").update(turn.input).digest();
  return transaction(db, async (tx) => {
    const { orgId, agentId, conversationId, messageId } = turn;
    let agent = await findPin(tx, turn);
    // Locked until the commit: a transaction that removes the device waits, and then also ends the
    // new turn.
    if (agent?.deviceId) agent = await findPin(tx, turn, sql`for share`);
    if (!agent) refuse("not_found", `there is no agent "${agentId}"`, { field: "agent_id" });
    const { rows: named } = await sql<{ turnId: string }>`
      insert into turn_message (org_id, agent_id, conversation_id, message_id, turn_id, input_sha256)
      values (${orgId}, ${agentId}, ${conversationId}, ${messageId}, uuid_v7(), ${sha256})
      on conflict do nothing
      returning turn_id as "turnId"
    `.execute(tx);
    if (!named[0]) return { ...(await findArmed(tx, turn, sha256)), isNew: false };
    const { turnId } = named[0];
    if (agent.noExecutorReason !== "" && !turn.resume) {
      refuse(
        "failed_precondition",
        `agent "${agentId}" has no executor: ${agent.noExecutorReason}; pin it to another device, or give its turns to the fleet (update its device_id, empty for the fleet)`,
        { field: "agent_id" },
      );
    }
    if (conversationId !== "") {
      // The row's lock is kept until the commit, so a conversation's turns are numbered in the
      // order of their commits.
      await sql`
        insert into conversation as c (org_id, agent_id, id) values (${orgId}, ${agentId}, ${conversationId})
        on conflict (org_id, agent_id, id) do update set last_turn_at = now()
      `.execute(tx);
      await requireRoom(tx, turn);
    }
    const { resume } = turn;
    const deviceId = resume?.deviceId ?? agent.deviceId;
    await sql`
      insert into turn (org_id, id, agent_id, agent_version, conversation_id, message_id, run_id, device_id, agent_kind, input,
        is_gated, timeout_ms, start_deadline_at, agent_session_id, resume_run_id)
      values (${orgId}, ${turnId}, ${agentId}, ${agent.version}, ${conversationId}, ${messageId}, ${turn.runId},
        ${deviceId}, ${turn.agentKind}, ${turn.input}, ${turn.isGated}, ${turn.timeoutMs},
        now() + ${turn.startTimeoutMs} * interval '1 ms', ${resume?.sessionId ?? ""}, ${resume?.runId ?? null})
    `.execute(tx);
    await within?.(tx, turnId);
    return { turnId, deviceId, isNew: true };
  });
}

/**
 * The session left by a conversation's last turn on a device, to be continued by the next turn:
 * agents give each turn a new session. Undefined: no turn left a session.
 */
export async function findSession(
  db: Db,
  which: { orgId: string; agentId: string; conversationId: string; deviceId: string },
): Promise<string | undefined> {
  const { rows } = await sql<{ sessionId: string }>`
    select agent_session_id as "sessionId" from turn_finished
    where org_id = ${which.orgId} and agent_id = ${which.agentId} and conversation_id = ${which.conversationId}
      and holder_id = ${which.deviceId} and agent_session_id <> ''
    order by id desc limit 1
  `.execute(db);
  return rows[0]?.sessionId;
}

async function findPin(
  tx: Db,
  { orgId, agentId }: NewTurn,
  lock = sql``,
): Promise<{ version: number; deviceId: string | null; noExecutorReason: string } | undefined> {
  const { rows } = await sql<{ version: number; deviceId: string | null; noExecutorReason: string }>`
    select version, device_id as "deviceId", no_executor_reason as "noExecutorReason"
    from agent where org_id = ${orgId} and id = ${agentId} ${lock}
  `.execute(tx);
  return rows[0];
}

async function findArmed(
  tx: Db,
  turn: NewTurn,
  sha256: Buffer,
): Promise<{ turnId: string; deviceId: string | null }> {
  const { rows } = await sql<{ turnId: string; isSame: boolean }>`
    select turn_id as "turnId", input_sha256 = ${sha256} as "isSame" from turn_message
    where org_id = ${turn.orgId} and agent_id = ${turn.agentId} and conversation_id = ${turn.conversationId}
      and message_id = ${turn.messageId}
  `.execute(tx);
  const armed = rows[0];
  if (!armed) refuse("aborted", "the conversation was deleted meanwhile; do it again", { retryAfterMs: 0 });
  if (!armed.isSame) {
    refuse(
      "already_exists",
      `message "${turn.messageId}" was sent before with another input; send this one under another message id`,
      { field: "message_id" },
    );
  }
  return { turnId: armed.turnId, deviceId: null };
}

/**
 * Limits waiting turns. The caller holds the lock on the conversation's row, so the count is exact.
 */
async function requireRoom(tx: Db, turn: NewTurn): Promise<void> {
  const { rows } = await sql<{ waiting: number }>`
    select count(*)::int as waiting from (
      select from turn where org_id = ${turn.orgId} and agent_id = ${turn.agentId}
        and conversation_id = ${turn.conversationId} and status = 'pending'
      limit ${turnsPerConversationMax}
    ) t
  `.execute(tx);
  if (onlyRow(rows).waiting < turnsPerConversationMax) return;
  refuse(
    "resource_exhausted",
    `${turnsPerConversationMax} turns of the conversation wait already; try again later`,
    { retryAfterMs: fullRetryMs },
  );
}

const columns = sql`
  t.org_id as "orgId", t.id, t.agent_id as "agentId", t.agent_version as "agentVersion",
  t.conversation_id as "conversationId", t.message_id as "messageId", t.run_id as "runId", t.device_id as "deviceId",
  t.agent_kind as "agentKind", t.is_gated as "isGated", t.timeout_ms as "timeoutMs", t.created_at as "createdAt",
  t.start_deadline_at as "startDeadlineAt", t.status, t.attempt, t.holder_id as "holderId", t.claimed_at as "claimedAt",
  t.started_at as "startedAt", t.last_beat_at as "lastBeatAt", t.deadline_at as "deadlineAt", t.expires_at as "expiresAt",
  t.cancel_requested_at as "cancelRequestedAt", t.reason, t.finished_at as "finishedAt",
  t.is_retryable as "isRetryable", t.is_reply_truncated as "isReplyTruncated", t.exit_code as "exitCode", t.signal,
  t.duration_ms as "durationMs", t.snapshot_version as "snapshotVersion"`;

/** A turn of the org, live or ended. */
export async function find(db: Db, turn: { orgId: string; turnId: string }): Promise<TurnRow | undefined> {
  const { rows } = await sql<TurnRow>`
    select ${columns}, t.input, t.reply, t.output_tail as "outputTail" from turn_all t where t.org_id = ${turn.orgId} and t.id = ${turn.turnId}
  `.execute(db);
  return rows[0];
}

/** Maximum characters of inputs and replies in a list. */
const excerptCharacters = 200;

/** Turns of the org, newest first, from before `beforeId`. */
export async function list(
  db: Db,
  filter: {
    orgId: string;
    beforeId?: string | undefined;
    agentId?: string | undefined;
    conversationId?: string | undefined;
    statuses: readonly string[];
    limit: number;
  },
): Promise<TurnRow[]> {
  const where = [sql`t.org_id = ${filter.orgId}`];
  if (filter.beforeId) where.push(sql`t.id < ${filter.beforeId}`);
  if (filter.agentId) where.push(sql`t.agent_id = ${filter.agentId}`);
  if (filter.conversationId) where.push(sql`t.conversation_id = ${filter.conversationId}`);
  if (filter.statuses.length > 0) where.push(sql`t.status = any(${filter.statuses as string[]}::text[])`);
  const { rows } = await sql<TurnRow>`
    select ${columns}, left(t.input, ${excerptCharacters}) as input, left(t.reply, ${excerptCharacters}) as reply,
      left(t.output_tail, ${excerptCharacters}) as "outputTail"
    from turn_all t where ${sql.join(where, sql` and `)}
    order by t.id desc
    limit ${filter.limit}
  `.execute(db);
  return rows;
}

/** A turn with a requested cancel, as of its lock. */
export type LockedTurn = {
  orgId: string;
  turnId: string;
  status: LiveTurnStatus;
  attemptToken: string | null;
  holderId: string | null;
};

/** Locks a live turn; undefined if the turn has ended or does not exist. */
export async function lockForCancel(
  tx: Db,
  turn: { orgId: string; turnId: string },
): Promise<LockedTurn | undefined> {
  const { rows } = await sql<LockedTurn>`
    select org_id as "orgId", id as "turnId", status, attempt_token as "attemptToken", holder_id as "holderId"
    from turn where org_id = ${turn.orgId} and id = ${turn.turnId}
    for update
  `.execute(tx);
  return rows[0];
}

/** Locks the live turns of a device: turns pinned to it (`isPinned`), and turns held by it. */
export async function lockOfDevice(
  tx: Db,
  device: { orgId: string; deviceId: string },
): Promise<(LockedTurn & { isPinned: boolean })[]> {
  const { rows } = await sql<LockedTurn & { isPinned: boolean }>`
    select org_id as "orgId", id as "turnId", status, attempt_token as "attemptToken", holder_id as "holderId",
      pool_id is not distinct from ${device.deviceId}::uuid as "isPinned"
    from turn
    where org_id = ${device.orgId} and (pool_id = ${device.deviceId} or holder_id = ${device.deviceId})
    order by org_id, id
    for update
  `.execute(tx);
  return rows;
}
