import { create, fromJson, type JsonObject, type MessageInitShape } from "@bufbuild/protobuf";
import { ExecutorInfoSchema, WorkspaceInfoSchema } from "#gen/pinion/v1/activity_pb.js";
import { Os, UpgradeInfoSchema } from "#gen/pinion/v1/device_pb.js";
import { type Device, DeviceSchema, Liveness } from "#gen/pinion/v1/fleet_pb.js";
import type * as devices from "../../../store/people/devices/devices.ts";
import type { RunSummary } from "../../../store/work/runs/run-summaries.ts";
import { archOf, reportedLabels } from "../../../values/labels.ts";
import { osEnum } from "../../enums.ts";
import { timestampOf } from "./moments.ts";
import { runSummaryMessage } from "./run-message.ts";

/** Devices between rows and messages. */

const livenessMessages: Record<devices.Liveness, Liveness> = {
  online: Liveness.ONLINE,
  unsteady: Liveness.UNSTEADY,
  offline: Liveness.OFFLINE,
  never: Liveness.NEVER,
};

/** The store's names for the values of a filter. */
export function livenessNames(wanted: readonly Liveness[]): devices.Liveness[] {
  return namesIn(livenessMessages, wanted);
}
export function osNames(wanted: readonly Os[]): devices.Os[] {
  return namesIn(osEnum, wanted);
}
function namesIn<Name extends string, Value>(
  messages: Record<Name, Value>,
  wanted: readonly Value[],
): Name[] {
  return (Object.keys(messages) as Name[]).filter((name) => wanted.includes(messages[name]));
}

/** Fields stored by a newer version are ignored. */
const lenient = { ignoreUnknownFields: true };

/**
 * Milliseconds. A copy without attempts for this time is taken for gone: enrolled anew, or deleted.
 */
const duplicateShownMs = 86_400_000;

function duplicateOf(duplicate: unknown): MessageInitShape<typeof DeviceSchema> {
  if (!duplicate) return {};
  const { hostName, seenAt } = duplicate as { hostName: string; seenAt: string };
  if (Date.now() - Date.parse(seenAt) > duplicateShownMs) return {};
  return { duplicate: { hostName, seenAt: timestampOf(new Date(seenAt)) } };
}

export function deviceMessage(row: devices.Device, lastRun?: RunSummary): Device {
  return create(DeviceSchema, {
    id: row.id,
    label: row.label,
    os: osEnum[row.os as devices.Os] ?? Os.UNSPECIFIED,
    installId: row.install_id,
    appVersion: row.app_version,
    agentKinds: row.agent_kinds,
    capabilities: row.capabilities,
    maxConcurrency: row.max_concurrency,
    ownerId: row.owner_id ?? "",
    liveness: livenessMessages[row.liveness],
    sessionEpoch: BigInt(row.session_epoch),
    replicaId: row.replica_id ?? "",
    connectedAt: timestampOf(row.connected_at),
    disconnectedAt: timestampOf(row.disconnected_at),
    lastBeatAt: timestampOf(row.last_beat_at),
    activeRuns: row.active_runs,
    pendingRuns: row.pending_runs,
    createdAt: timestampOf(row.created_at),
    isWorker: row.is_worker,
    executors: row.executors.map((executor) => fromJson(ExecutorInfoSchema, executor as JsonObject, lenient)),
    workspaces: row.workspaces.map((known) => fromJson(WorkspaceInfoSchema, known as JsonObject, lenient)),
    configProblem: row.config_problem,
    ...(row.upgrade ? { upgrade: fromJson(UpgradeInfoSchema, row.upgrade as JsonObject, lenient) } : {}),
    hostName: (row.machine as { hostName?: string }).hostName ?? "",
    ...duplicateOf(row.duplicate),
    lastRun: lastRun && runSummaryMessage(lastRun),
    labels: row.labels,
    reportedLabels: reportedLabels(row),
    arch: archOf(row),
  });
}
