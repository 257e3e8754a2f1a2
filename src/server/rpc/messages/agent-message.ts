import { create, fromJson, type JsonObject, toJson } from "@bufbuild/protobuf";
import {
  type Agent,
  type AgentPlatform,
  AgentPlatformSchema,
  AgentSchema,
  type AgentSettings,
  AgentSettingsSchema,
  PlatformStatus,
  UpsertOutcome,
} from "#gen/pinion/v1/agent_pb.js";
import { isReference } from "../../../secrets.ts";
import type * as agents from "../../../store/agents/agents.ts";
import type { Instance } from "../../../store/agents/platform-leases.ts";
import type * as starts from "../../../store/agents/platform-starts.ts";
import type * as platforms from "../../../store/agents/platforms.ts";
import type { Json } from "../../../store/pg/schema/schema-columns.ts";
import { hasUrlPassword, isSecretKey } from "../../platforms/kinds.ts";
import { usesWebhook, webhookPath } from "../../platforms/lines/lines.ts";
import { timestampOf } from "./moments.ts";

/** Agents and their platforms between rows and messages. */

export function agentMessage(row: agents.Agent): Agent {
  return create(AgentSchema, {
    id: row.id,
    name: row.name,
    ownerId: row.ownerId ?? "",
    version: row.version,
    settings: settingsMessage(row.settings),
    isDefault: row.isDefault,
    deviceId: row.deviceId ?? "",
    noExecutorReason: row.noExecutorReason,
    createdAt: timestampOf(row.createdAt),
    updatedAt: timestampOf(row.updatedAt),
  });
}

export function settingsMessage(settings: Json): AgentSettings {
  return fromJson(AgentSettingsSchema, settings as JsonObject, { ignoreUnknownFields: true });
}

/** The settings as stored. Unset fields are absent, so that equal settings are equal JSON. */
export function settingsJson(settings: AgentSettings): Json {
  return toJson(AgentSettingsSchema, settings) as Json;
}

const statusMessages: Record<platforms.Platform["status"], PlatformStatus> = {
  stopped: PlatformStatus.STOPPED,
  starting: PlatformStatus.STARTING,
  running: PlatformStatus.RUNNING,
  failed: PlatformStatus.FAILED,
};

const isTakenOver = "the replica that ran it is gone; another one takes it over";

/**
 * A platform as a message, with what its instance says of itself. A setting stored by an older
 * version whose key is a secret by now is shown as a secret.
 */
export function platformMessage(
  row: platforms.Platform,
  {
    instance,
    publicUrl,
    cell,
  }: { instance: Instance | undefined; publicUrl: string | undefined; cell: string },
): AgentPlatform {
  const isLeft = row.status === "running" && instance?.replicaId === null;
  const path = webhookPath({ orgId: row.org_id, stableId: row.stable_id }, cell);
  const isHidden = ([key, value]: [string, string]) => isSecretKey(row.kind, key) || hasUrlPassword(value);
  const settings = Object.entries(row.config);
  const hidden = Object.fromEntries(settings.filter(isHidden).map(([key]) => [key, ""]));
  return create(AgentPlatformSchema, {
    stableId: row.stable_id,
    agentId: row.agent_id,
    kind: row.kind,
    config: Object.fromEntries(settings.filter((setting) => !isHidden(setting))),
    secrets: Object.entries({ ...hidden, ...row.secrets })
      .map(([name, stored]) => ({ name, reference: isReference(stored) ? stored : "" }))
      .sort((a, b) => (a.name < b.name ? -1 : 1)),
    status: isLeft ? PlatformStatus.STARTING : statusMessages[row.status],
    statusReason: isLeft ? isTakenOver : row.status_reason,
    lastMessageInAt: timestampOf(instance?.lastInAt ?? null),
    lastMessageOutAt: timestampOf(instance?.lastOutAt ?? null),
    lastError: instance?.lastError ?? "",
    lastErrorAt: timestampOf(instance?.lastErrorAt ?? null),
    replicaId: instance?.replicaId ?? "",
    webhookUrl: !usesWebhook(row.kind, Object.keys(row.secrets))
      ? ""
      : publicUrl
        ? new URL(path, publicUrl).href
        : path,
    version: row.version,
    createdAt: timestampOf(row.created_at),
    updatedAt: timestampOf(row.updated_at),
  });
}

export const outcomeMessages: Record<starts.Outcome, UpsertOutcome> = {
  created: UpsertOutcome.CREATED,
  updated: UpsertOutcome.UPDATED,
  noop: UpsertOutcome.NOOP,
};
