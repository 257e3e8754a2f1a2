import { create, fromJson, type JsonObject, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, timestampFromDate, timestampNow } from "@bufbuild/protobuf/wkt";
import { type AgentSettings, AgentSettingsSchema } from "#gen/pinion/v1/agent_pb.js";
import {
  AssignmentKind,
  CompletionVerdict,
  type ConnectResponse,
  ConnectResponseSchema,
  type DrainReason,
  type Heartbeat,
  type HeldVerdict,
} from "#gen/pinion/v1/device_pb.js";
import { Notification } from "#gen/pinion/v1/run_pb.js";
import { pairsOf } from "../../../batches/pairs.ts";
import type { ReportVerdict } from "../../../scheduler/endings/endings.ts";
import type { Incarnation } from "../../../store/pg/incarnation.ts";
import type { ClaimedRun } from "../../../store/work/runs/run-claims.ts";
import type { ClaimedTurn } from "../../../store/work/turns/turn-attempts.ts";
import { agentToken } from "../../../values/agent-token.ts";
import { conversationOfRun } from "../../../values/conversation-ids.ts";
import { withCell } from "../../../values/ids.ts";
import { render } from "../../../values/input.ts";
import { isShallow } from "../../../values/json.ts";
import { agentWorkMessage } from "../../agent-work.ts";
import { notificationOf, sourceOf } from "../../enums.ts";
import { transcriptBytesMax, verdictOf, verdictText } from "./reports.ts";

/**
 * The messages' rules have the same limits; the welcome repeats them so that the device truncates.
 */
const completionOutputBytesMax = 1_048_576;
const outputChunkBytesMax = 32_768;

/** Conversions between the stream's messages and the types of the store and the scheduler. */

type Body = NonNullable<MessageInitShape<typeof ConnectResponseSchema>["message"]>;

export function response(message: Body): ConnectResponse {
  return create(ConnectResponseSchema, { message });
}

/** The assignment of a claimed run accepted by dispatcher.whyUnusable. */
export function assignmentOf(run: ClaimedRun, traceparent: string, cell: string): ConnectResponse {
  return response({
    case: "assignment",
    value: {
      workId: run.runId,
      attemptToken: run.attemptToken,
      attempt: run.attempt,
      kind: AssignmentKind.WATCHER_RUN,
      agentKind: run.agentKind,
      timeout: durationFromMs(run.timeoutMs),
      notification: notificationOf(run.notification),
      agent: {
        id: run.agentId,
        name: run.agentName ?? "",
        version: run.agentVersion,
        settings: settingsOf(run.agentSettings),
      },
      watcher: {
        id: run.watcherId,
        slug: run.watcherSlug ?? "",
        name: run.watcherName ?? "",
        version: run.watcherVersion,
        prompt: promptOf(run),
        ...(run.extractionSchema ? { extractionSchema: run.extractionSchema as JsonObject } : {}),
      },
      event: {
        firedAt: timestampFromDate(run.dueAt),
        source: sourceOf(run.source),
        ...(run.scheduledFor ? { scheduledFor: timestampFromDate(run.scheduledFor) } : {}),
        windowStart: timestampFromDate(run.windowStart),
        windowEnd: timestampFromDate(run.windowEnd),
        ...(run.input === null ? {} : { input: JSON.stringify(JSON.parse(run.input)) }),
      },
      context: {
        deviceId: run.deviceId,
        conversationId: conversationOfRun(run),
        ...(run.priorWindow ? { priorWindow: priorWindowOf(run.priorWindow, run.watcherId) } : {}),
      },
      traceparent,
      agentToken: agentTokenOf(run, cell),
      ...agentWorkOf(run),
    },
  });
}

/** The prompt with the values of the run's input inserted. */
function promptOf({ prompt, input }: ClaimedRun): string {
  return input === null || !prompt ? (prompt ?? "") : render(prompt, JSON.parse(input));
}

/** The token for the MCP server that Pinion injects; empty for an agent without the server. */
export function agentTokenOf(run: ClaimedRun, cell: string): string {
  const { mcpServers = [] } = (run.agentSettings ?? {}) as { mcpServers?: { isInjected?: boolean }[] };
  return mcpServers.some((server) => server.isInjected) ? withCell(agentToken(run), cell) : "";
}

/** The watcher's requests to its agent beside the prompt. */
function agentWorkOf(run: ClaimedRun) {
  const { workspace, runBudget, questions } = agentWorkMessage(run.agentWork);
  const agentWorkspace = (run.agentSettings as { workspace?: string } | null)?.workspace ?? "";
  return {
    workspace: workspace || agentWorkspace,
    ...(runBudget ? { budget: runBudget } : {}),
    ...(questions ? { questions } : {}),
    ...(run.agentSession
      ? { session: { sessionId: run.agentSession.id, runId: run.agentSession.run_id } }
      : {}),
  };
}

function priorWindowOf(window: NonNullable<ClaimedRun["priorWindow"]>, watcherId: string) {
  return {
    id: window.id,
    watcherId,
    runId: window.run_id,
    windowStart: timestampFromDate(new Date(window.window_start)),
    windowEnd: timestampFromDate(new Date(window.window_end)),
    modelUsed: window.model_used,
    extractedData: {
      kind: window.kind,
      output: window.output,
      ...(window.structured === null || !isShallow(window.structured as JsonValue)
        ? {}
        : { structured: window.structured as JsonValue }),
    },
    createdAt: timestampFromDate(new Date(window.created_at)),
  };
}

/**
 * Settings as the store keeps them: the message's JSON. Keys of a newer version are passed over.
 */
function settingsOf(settings: unknown): AgentSettings {
  return fromJson(AgentSettingsSchema, settings as JsonObject, { ignoreUnknownFields: true });
}

/** The assignment of a claimed turn whose agent is known. */
export function turnAssignmentOf(turn: ClaimedTurn): ConnectResponse {
  const settings = settingsOf(turn.agentSettings);
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

/** The welcome for a device: the server dictates timers and limits. */
export function welcomeOf(session: {
  deviceId: string;
  epoch: number;
  replicaId: string;
  timers: { heartbeatIntervalMs: number; ttlMs: number; acceptDeadlineMs: number; messageBytesMax: number };
  held: readonly { workId: string; attemptToken: string }[];
  verdicts: readonly HeldVerdict[];
  incarnation: Incarnation | undefined;
  /** The version of the daemon that this server gives; empty: none. */
  daemonVersion: string;
}): ConnectResponse {
  const { timers } = session;
  return response({
    case: "welcome",
    value: {
      deviceId: session.deviceId,
      sessionEpoch: BigInt(session.epoch),
      replicaId: session.replicaId,
      serverTime: timestampNow(),
      capabilities: ["activity", "questions"],
      daemonVersion: session.daemonVersion,
      ...(session.incarnation ? { incarnation: incarnationMessage(session.incarnation) } : {}),
      timers: {
        heartbeatInterval: durationFromMs(timers.heartbeatIntervalMs),
        ttl: durationFromMs(timers.ttlMs),
        acceptDeadline: durationFromMs(timers.acceptDeadlineMs),
      },
      limits: {
        messageBytesMax: BigInt(timers.messageBytesMax),
        completionOutputBytesMax: BigInt(completionOutputBytesMax),
        outputChunkBytesMax: BigInt(outputChunkBytesMax),
        transcriptBytesMax: BigInt(transcriptBytesMax),
      },
      verdicts: pairsOf(session.held, session.verdicts).map(([{ workId, attemptToken }, verdict]) => ({
        workId,
        attemptToken,
        verdict,
      })),
    },
  });
}

/** As in a welcome, and in the answers to a completion. */
export const incarnationMessage = ({ safePosition, ...incarnation }: Incarnation) => ({
  ...incarnation,
  safePosition: safePosition ?? "",
});

export function heartbeatAckOf(heartbeat: Heartbeat): ConnectResponse {
  return response({
    case: "heartbeatAck",
    value: { sequence: heartbeat.sequence, serverTime: timestampNow() },
  });
}

export function cancelOf(attempt: { workId: string; attemptToken: string; reason: string }): ConnectResponse {
  const { workId, attemptToken, reason } = attempt;
  return response({ case: "cancel", value: { workId, attemptToken, reason } });
}

export function drainOf(drain: {
  reason: DrainReason;
  message: string;
  reconnectAfterMs: number;
  /** The org's new cell. */
  cell?: string;
}): ConnectResponse {
  const { reason, message, cell = "" } = drain;
  const reconnectAfter = durationFromMs(Math.round(drain.reconnectAfterMs));
  return response({ case: "drain", value: { reason, message, reconnectAfter, cell } });
}

/** Sent after the commit. */
export function completionAckOf(
  { workId, attemptToken }: { workId: string; attemptToken: string },
  stored: ReportVerdict,
  incarnation: Incarnation | undefined,
): ConnectResponse {
  return response({
    case: "completionAck",
    value: {
      workId,
      attemptToken,
      verdict: verdictOf[stored.verdict],
      windowId: stored.windowId ?? "",
      message: verdictText[stored.verdict],
      ...(incarnation ? { incarnation: incarnationMessage(incarnation) } : {}),
    },
  });
}

/** The answer to a completion that breaks a rule and can never be stored. */
export function invalidCompletionAckOf(
  { workId, attemptToken }: { workId: string; attemptToken: string },
  message: string,
): ConnectResponse {
  return response({
    case: "completionAck",
    value: { workId, attemptToken, verdict: CompletionVerdict.INVALID, message },
  });
}
