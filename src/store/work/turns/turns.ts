import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { isOneOf } from "../runs/run-filters.ts";
import type { NewTurn, StartedTurn } from "./arming.ts";

/**
 * Turns for their readers, and requests to end turns. arming.ts starts turns, turn-settlements.ts
 * ends turns.
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

/** The row of a turn as it was started: pending, and tried by no worker. */
export function startedRow(turn: NewTurn, started: StartedTurn): TurnRow {
  const { orgId, agentId, conversationId, messageId, runId, agentKind, input, isGated, timeoutMs } = turn;
  const { turnId: id, agentVersion, deviceId, createdAt, startDeadlineAt } = started;
  return {
    ...{ orgId, id, agentId, agentVersion, conversationId, messageId, runId, deviceId, agentKind, input },
    ...{ isGated, timeoutMs, createdAt, startDeadlineAt, status: "pending", attempt: 0, holderId: null },
    ...{ claimedAt: null, startedAt: null, lastBeatAt: null, deadlineAt: null, expiresAt: null },
    ...{ cancelRequestedAt: null, reason: "", finishedAt: null, isRetryable: false, reply: "" },
    ...{ isReplyTruncated: false, exitCode: null, signal: "", durationMs: null, snapshotVersion: null },
    outputTail: "",
  };
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
  if (filter.statuses.length > 0) where.push(isOneOf(filter.statuses, sql`t.status`));
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

/** Locks the live turns of devices, as {@link lockOfDevice} does for one of them. */
export async function lockOfDevices(
  tx: Db,
  { orgId, deviceIds }: { orgId: string; deviceIds: readonly string[] },
): Promise<void> {
  const ids = deviceIds as string[];
  await sql`
    select from turn where org_id = ${orgId} and (pool_id = any(${ids}::uuid[]) or holder_id = any(${ids}::uuid[]))
    order by org_id, id for update`.execute(tx);
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
