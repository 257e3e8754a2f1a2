import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import {
  type Conversation,
  ConversationSchema,
  type Turn,
  TurnSchema,
  TurnStatus,
} from "#gen/pinion/v1/turn_pb.js";
import type { ConversationRow } from "../../../store/work/turns/conversations.ts";
import type { TurnRow } from "../../../store/work/turns/turns.ts";
import { timestampOf } from "./moments.ts";

/** Turns and conversations as messages. */

export const turnStatuses: Record<TurnRow["status"], TurnStatus> = {
  pending: TurnStatus.PENDING,
  claimed: TurnStatus.CLAIMED,
  running: TurnStatus.RUNNING,
  completed: TurnStatus.COMPLETED,
  failed: TurnStatus.FAILED,
  timeout: TurnStatus.TIMEOUT,
  cancelled: TurnStatus.CANCELLED,
};

/** A turn, and the number of its agent's open questions. */
export function turnMessage(row: TurnRow, openQuestions = 0): Turn {
  return create(TurnSchema, {
    id: row.id,
    agentId: row.agentId,
    agentVersion: row.agentVersion,
    conversationId: row.conversationId,
    messageId: row.messageId,
    runId: row.runId ?? "",
    status: turnStatuses[row.status],
    input: row.input,
    reply: row.reply,
    isReplyTruncated: row.isReplyTruncated,
    reason: row.reason,
    isRetryable: row.isRetryable,
    deviceId: row.deviceId ?? "",
    holderId: row.holderId ?? "",
    attempt: row.attempt,
    agentKind: row.agentKind,
    timeout: durationFromMs(row.timeoutMs),
    usesSnapshot: row.isGated,
    snapshotVersion: BigInt(row.snapshotVersion ?? 0),
    ...(row.exitCode === null ? {} : { exitCode: row.exitCode }),
    signal: row.signal,
    ...(row.durationMs === null ? {} : { duration: durationFromMs(row.durationMs) }),
    createdAt: timestampOf(row.createdAt),
    startDeadlineAt: timestampOf(row.startDeadlineAt),
    claimedAt: timestampOf(row.claimedAt),
    startedAt: timestampOf(row.startedAt),
    lastBeatAt: timestampOf(row.lastBeatAt),
    deadlineAt: timestampOf(row.deadlineAt),
    expiresAt: timestampOf(row.expiresAt),
    cancelRequestedAt: timestampOf(row.cancelRequestedAt),
    finishedAt: timestampOf(row.finishedAt),
    openQuestions,
    outputTail: row.outputTail,
  });
}

export function conversationMessage(row: ConversationRow): Conversation {
  return create(ConversationSchema, {
    id: row.id,
    agentId: row.agentId,
    snapshotVersion: BigInt(row.snapshotVersion),
    snapshotBytes: BigInt(row.snapshotBytes),
    activeTurnId: row.activeTurnId ?? "",
    turnsWaiting: row.turnsWaiting,
    createdAt: timestampOf(row.createdAt),
    lastTurnAt: timestampOf(row.lastTurnAt),
  });
}
