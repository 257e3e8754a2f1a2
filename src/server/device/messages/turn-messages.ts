import { fromJson, type JsonObject } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromDate } from "@bufbuild/protobuf/wkt";
import { AgentSettingsSchema } from "#gen/pinion/v1/agent_pb.js";
import { AssignmentKind, type ConnectResponse } from "#gen/pinion/v1/device_pb.js";
import { Notification } from "#gen/pinion/v1/run_pb.js";
import type { ClaimedTurn } from "../../../store/work/turns/turn-attempts.ts";
import { response } from "./messages.ts";

/** The assignment of a claimed turn whose agent is known. */
export function turnAssignmentOf(turn: ClaimedTurn): ConnectResponse {
  const settings = fromJson(AgentSettingsSchema, turn.agentSettings as JsonObject, {
    ignoreUnknownFields: true,
  });
  return response({
    case: "assignment",
    value: {
      workId: turn.turnId,
      attemptToken: turn.attemptToken,
      attempt: turn.attempt,
      kind: AssignmentKind.TURN,
      agentKind: turn.agentKind,
      timeout: durationFromMs(turn.timeoutMs),
      notification: Notification.NONE,
      agent: { id: turn.agentId, name: turn.agentName ?? "", version: turn.agentVersion, settings },
      context: { deviceId: turn.deviceId, conversationId: turn.conversationId },
      ...(turn.agentSessionId && turn.resumeRunId
        ? { session: { sessionId: turn.agentSessionId, runId: turn.resumeRunId, isRequired: true } }
        : {}),
      turn: {
        conversationId: turn.conversationId,
        messageId: turn.messageId,
        input: turn.input,
        usesSnapshot: turn.isGated,
        ...(turn.snapshot ? { snapshot: turn.snapshot } : {}),
        snapshotVersion: BigInt(turn.snapshotVersion),
        deadlineAt: timestampFromDate(turn.deadlineAt),
        subjectRunId: turn.runId ?? "",
      },
    },
  });
}
