import { create, fromJson, type JsonObject, type JsonValue, type MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, durationMs, timestampFromDate, timestampNow } from "@bufbuild/protobuf/wkt";
import { type AgentSettings, AgentSettingsSchema } from "#gen/pinion/v1/agent_pb.js";
import {
  AssignmentKind,
  type Completion,
  CompletionVerdict,
  type ConnectRequest,
  type ConnectResponse,
  ConnectResponseSchema,
  type DrainReason,
  type Heartbeat,
  type HeldVerdict,
  Outcome,
} from "#gen/pinion/v1/device_pb.js";
import { agentToken } from "../../../agent-token.ts";
import { conversationOfRun } from "../../../conversation-ids.ts";
import { withCell } from "../../../ids.ts";
import { render } from "../../../input.ts";
import type { Report, ReportVerdict } from "../../../scheduler/endings.ts";
import type { Incarnation } from "../../../store/pg/incarnation.ts";
import { storableText } from "../../../store/pg/storable.ts";
import type { ClaimedRun } from "../../../store/work/runs/run-claims.ts";
import { agentWorkMessage } from "../../agent-work.ts";
import { notificationOf, sourceOf } from "../../enums.ts";
import { agentReportOf, transcriptBytesMax } from "./agent-report.ts";

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
      ...(window.structured === null ? {} : { structured: window.structured as JsonValue }),
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
      verdicts: session.held.map(({ workId, attemptToken }, index) => ({
        workId,
        attemptToken,
        verdict: session.verdicts[index]!,
      })),
    },
  });
}

const incarnationMessage = ({ safePosition, ...incarnation }: Incarnation) => ({
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

type AttemptNamed = { workId: string; attemptToken: string };

/** Sent after the commit. */
export function completionAckOf(
  { workId, attemptToken }: AttemptNamed,
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

/**
 * Maximum characters, from its end, of an output that cannot be stored as sent, shown with the run.
 */
const invalidTailMax = 8_000;

/** The settlement of an attempt whose completion can never be stored. */
export function invalidEndOf(completion: Completion, why: string) {
  return {
    action: "finish",
    status: "failed",
    reason: `the device's result is invalid, and is set aside there: ${why}`,
    output: storableText(completion.output.slice(-invalidTailMax).toWellFormed()),
    isOutputTruncated: true,
  } as const;
}

/** The answer to a completion that breaks a rule and can never be stored. */
export function invalidCompletionAckOf(
  { workId, attemptToken }: AttemptNamed,
  message: string,
): ConnectResponse {
  return response({
    case: "completionAck",
    value: { workId, attemptToken, verdict: CompletionVerdict.INVALID, message },
  });
}

/** Some languages write UUIDs in capitals; here they are compared as the database writes them. */
export function normalizeNames(request: ConnectRequest): void {
  const { message } = request;
  if (message.case === "hello") message.value.held.forEach(normalizeName);
  else if (message.case === "heartbeat") message.value.attempts.forEach(normalizeName);
  else if (message.case === "logExcerpt") message.value.requestId = message.value.requestId.toLowerCase();
  else if (message.case) normalizeName(message.value);
}

export function normalizeName(name: AttemptNamed): void {
  name.workId = name.workId.toLowerCase();
  name.attemptToken = name.attemptToken.toLowerCase();
}

const statusOf: Record<Outcome, Report["status"]> = {
  // Refused earlier, by the rules of the message.
  [Outcome.UNSPECIFIED]: "failed",
  [Outcome.COMPLETED]: "completed",
  [Outcome.FAILED]: "failed",
  [Outcome.TIMEOUT]: "timeout",
  [Outcome.CANCELLED]: "cancelled",
};

/**
 * A device's report, under the identity of its token (R6). `accepting`: the times of an accept that
 * may not be in the database yet, by the monotonic clock.
 */
export function reportOf(
  device: { orgId: string; deviceId: string },
  completion: Completion,
  accepting?: { pushedAt: number; acceptedAt: number },
): Report {
  return {
    orgId: device.orgId,
    deviceId: device.deviceId,
    workId: completion.workId,
    attemptToken: completion.attemptToken,
    status: statusOf[completion.outcome],
    output: completion.output,
    isOutputTruncated: completion.isOutputTruncated,
    exitCode: completion.exitCode,
    signal: completion.signal,
    reason: completion.reason,
    durationMs: completion.duration ? durationMs(completion.duration) : undefined,
    nextSnapshot: completion.nextSnapshot,
    agent: agentReportOf(completion),
    ...(completion.retryAfter ? { laterMs: durationMs(completion.retryAfter) } : {}),
    ...(accepting && { pushedAt: accepting.pushedAt, startedAt: accepting.acceptedAt }),
  };
}

/** The end of an attempt after a requested cancel. */
export function cancelledReportOf(
  device: { orgId: string; deviceId: string },
  attempt: { workId: string; attemptToken: string },
): Report {
  return {
    orgId: device.orgId,
    deviceId: device.deviceId,
    workId: attempt.workId,
    attemptToken: attempt.attemptToken,
    status: "cancelled",
    output: "",
    isOutputTruncated: false,
    exitCode: undefined,
    signal: "",
    // The store fills in why the cancellation was asked for.
    reason: "",
    durationMs: undefined,
  };
}

export const verdictOf: Record<ReportVerdict["verdict"], CompletionVerdict> = {
  stored: CompletionVerdict.STORED,
  stored_late: CompletionVerdict.STORED_LATE,
  already_stored: CompletionVerdict.ALREADY_STORED,
  superseded: CompletionVerdict.SUPERSEDED,
  unknown: CompletionVerdict.UNKNOWN,
};

/** Texts for people who read a device's log. */
export const verdictText: Record<ReportVerdict["verdict"], string> = {
  stored: "",
  already_stored: "stored before",
  stored_late: "it came late, and is the run's end after all",
  superseded: "the run has ended without this attempt, or another attempt owns it; kept as a late result",
  unknown: "no such attempt of this device",
};
