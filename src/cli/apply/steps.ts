import type { AgentFields } from "./agent-fields.ts";
import type { DesiredAgent, DesiredDestination, DesiredPlatform, DesiredWatcher } from "./desired.ts";
import type { WatcherFields } from "./watcher-fields.ts";

export type Kind = "agent" | "platform" | "watcher" | "destination";
/** `drift` exists on the server and not in the file, and stays; with --prune it is a `delete`. */
export type Action = "create" | "update" | "noop" | "drift" | "delete";

/** A field that changes, as it may be shown: what holds a secret is not in here. */
export type FieldChange = { field: string; before: unknown; after: unknown };

type StepBase = {
  action: Action;
  id: string;
  /** The agent it belongs to; of an agent, itself. */
  agent: string;
  fields: FieldChange[];
  /** A platform that runs is interrupted. */
  willRestart: boolean;
  /** What a person should know of it; may be empty. */
  note: string;
};

export type AgentStep = StepBase & {
  kind: "agent";
  wanted?: DesiredAgent;
  /** Names of the settings that change, for the mask. */
  changed: (keyof AgentFields)[];
  /** As it was seen; 0 for a new one. */
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
export type Step = AgentStep | PlatformStep | WatcherStep | DestinationStep;

/** Steps in the order in which they are done: agents, destinations, platforms, watchers; then deletions, the other way round. */
export type Plan = { steps: Step[] };
