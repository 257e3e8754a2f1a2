import { create, type MessageInitShape } from "@bufbuild/protobuf";
import {
  CreateAgentRequestSchema,
  UpdateAgentSettingsRequestSchema,
  UpsertPlatformRequestSchema,
} from "#gen/pinion/v1/agent_pb.js";
import {
  CreateDestinationRequestSchema,
  UpdateDestinationRequestSchema,
} from "#gen/pinion/v1/destination_pb.js";
import { LabelDeviceRequestSchema } from "#gen/pinion/v1/fleet_pb.js";
import { CreateHookRequestSchema, UpdateHookRequestSchema } from "#gen/pinion/v1/hook_pb.js";
import { CreateWatcherRequestSchema, UpdateWatcherRequestSchema } from "#gen/pinion/v1/watcher_pb.js";
import { settingsOfFields } from "../fields/agent-fields.ts";
import { specOfDestination } from "../fields/destination-fields.ts";
import { hookPaths, specOfHook } from "../fields/hook-fields.ts";
import { specOfFields, specPaths } from "../fields/watcher-fields.ts";
import type {
  DesiredAgent,
  DesiredDestination,
  DesiredHook,
  DesiredPlatform,
  DesiredWatcher,
} from "../file/desired.ts";
import type { AgentStep, DeviceStep, HookStep, WatcherStep } from "../plan/steps.ts";

/** Requests of the steps, used for the dry run and for the write. */

export function createAgent(wanted: DesiredAgent) {
  return create(CreateAgentRequestSchema, {
    agentId: wanted.id,
    name: wanted.fields.name ?? "",
    settings: settingsOfFields(wanted.fields),
  });
}

export function updateAgent(wanted: DesiredAgent, step: Pick<AgentStep, "changed" | "version">) {
  const paths = step.changed.filter((name) => name !== "name" && name !== "device");
  const init: MessageInitShape<typeof UpdateAgentSettingsRequestSchema> = {
    agentId: wanted.id,
    settings: settingsOfFields(wanted.fields),
    updateMask: { paths },
    expectedVersion: step.version,
  };
  const { name, device } = wanted.fields;
  if (step.changed.includes("name") && name !== undefined) init.name = name;
  if (step.changed.includes("device") && device !== undefined) init.deviceId = device;
  return create(UpdateAgentSettingsRequestSchema, init);
}

export function upsertPlatform(wanted: DesiredPlatform, version: number) {
  return create(UpsertPlatformRequestSchema, {
    stableId: wanted.id,
    agentId: wanted.agent,
    kind: wanted.kind,
    config: wanted.config,
    secrets: Object.fromEntries(
      Object.entries(wanted.secrets).map(([name, value]) => [
        name,
        { kind: { case: "value", value } } as const,
      ]),
    ),
    expectedVersion: version,
  });
}

export function createDestination(wanted: DesiredDestination) {
  return create(CreateDestinationRequestSchema, {
    slug: wanted.slug,
    spec: specOfDestination(wanted.fields),
  });
}

export function updateDestination(wanted: DesiredDestination, expectedVersion: number) {
  const spec = specOfDestination(wanted.fields);
  return create(UpdateDestinationRequestSchema, { destinationId: wanted.slug, spec, expectedVersion });
}

export function createHook(wanted: DesiredHook) {
  const { slug, secret = "", fields } = wanted;
  return create(CreateHookRequestSchema, { slug, secret, spec: specOfHook(fields) });
}

export function updateHook(wanted: DesiredHook, step: Pick<HookStep, "changed" | "version">) {
  return create(UpdateHookRequestSchema, {
    hookId: wanted.slug,
    spec: specOfHook(wanted.fields),
    updateMask: { paths: step.changed.map((name) => hookPaths[name]) },
    secret: wanted.secret ?? "",
    expectedVersion: step.version,
  });
}

export function labelDevice({ wanted, add, remove }: Pick<DeviceStep, "wanted" | "add" | "remove">) {
  return create(LabelDeviceRequestSchema, { deviceId: wanted.device, add, remove });
}

export function createWatcher(wanted: DesiredWatcher) {
  return create(CreateWatcherRequestSchema, { slug: wanted.slug, spec: specOfFields(wanted.fields) });
}

export function updateWatcher(wanted: DesiredWatcher, step: Pick<WatcherStep, "changed" | "version">) {
  return create(UpdateWatcherRequestSchema, {
    watcherId: wanted.slug,
    spec: specOfFields(wanted.fields),
    updateMask: { paths: step.changed.map((name) => specPaths[name]) },
    expectedVersion: step.version,
  });
}
