import type { AgentFields } from "../fields/agent-fields.ts";
import type { HookFields } from "../fields/hook-fields.ts";
import type { WatcherFields } from "../fields/watcher-fields.ts";
import type {
  DesiredAgent,
  DesiredDestination,
  DesiredDevice,
  DesiredHook,
  DesiredPlatform,
  DesiredWatcher,
} from "../file/desired.ts";

export type Kind = "agent" | "platform" | "watcher" | "destination" | "hook" | "device";
/** `drift`: on the server but not in the file, and left alone; with --prune a `delete`. */
export type Action = "create" | "update" | "noop" | "drift" | "delete";

/** A changed field for display, without secrets. */
export type FieldChange = { field: string; before: unknown; after: unknown };

/** The server's dry-run result for writing a platform, a destination or a hook. */
export type Verdict = {
  outcome: "created" | "updated" | "noop";
  willRestart: boolean;
  changedFields: string[];
};

type StepBase = {
  action: Action;
  id: string;
  /** The object's agent; for an agent, its own id. */
  agent: string;
  fields: FieldChange[];
  /** True if the write restarts a running platform. */
  willRestart: boolean;
  /** A note for people; may be empty. */
  note: string;
};

export type AgentStep = StepBase & {
  kind: "agent";
  wanted?: DesiredAgent;
  /** Names of the changed settings, for the update mask. */
  changed: (keyof AgentFields)[];
  /** The version read; 0 for a new object. */
  version: number;
};
export type PlatformStep = StepBase & { kind: "platform"; wanted?: DesiredPlatform; version: number };
export type WatcherStep = StepBase & {
  kind: "watcher";
  wanted?: DesiredWatcher;
  changed: (keyof WatcherFields)[];
  version: number;
};
export type DestinationStep = StepBase & {
  kind: "destination";
  wanted?: DesiredDestination;
  version: number;
};
export type HookStep = StepBase & {
  kind: "hook";
  wanted?: DesiredHook;
  changed: Exclude<keyof HookFields, "kind">[];
  /** The server has another secret than the file. */
  isSecretNew: boolean;
  version: number;
};
/**
 * Labels have no version: the write adds and removes labels, so writes of two callers both stay.
 */
export type DeviceStep = StepBase & {
  kind: "device";
  wanted: DesiredDevice;
  add: string[];
  remove: string[];
};
export type Step = AgentStep | PlatformStep | WatcherStep | DestinationStep | HookStep | DeviceStep;

/**
 * Steps in order: devices, agents, destinations, platforms, watchers, hooks, then objects missing
 * in the file in an order safe for deletion; `execute` groups the steps.
 */
export type Plan = { steps: Step[] };
