import { PlatformStatus } from "#gen/pinion/v1/agent_pb.js";
import type { Desired } from "./desired.ts";
import type { OrgState } from "./state.ts";
import type { Step } from "./steps.ts";

/** Objects in the org but not in the file, in an order safe for deletion. Pure. */
export function driftSteps(desired: Desired, state: OrgState, action: "drift" | "delete"): Step[] {
  const base = { fields: [], willRestart: false };
  const agents = new Set(desired.agents.map(({ id }) => id));
  const platforms = new Set(desired.platforms.map(({ id }) => id));
  const watchers = new Set(desired.watchers.map(({ slug }) => slug));
  return [
    ...[...state.hooks.values()]
      .filter(({ slug }) => !desired.hooks.some((wanted) => wanted.slug === slug))
      .map(
        ({ slug, version }): Step => ({
          ...base,
          ...{ kind: "hook", action, id: slug, agent: "", changed: [], isSecretNew: false, version },
          note: "",
        }),
      ),
    ...[...state.watchers.values()]
      .filter(({ slug }) => !watchers.has(slug))
      .map(
        ({ slug, spec, version }): Step => ({
          ...base,
          kind: "watcher",
          action,
          id: slug,
          agent: spec?.agentId ?? "",
          changed: [],
          version,
          note: "",
        }),
      ),
    ...[...state.destinations.values()]
      .filter(({ slug }) => !desired.destinations.some((wanted) => wanted.slug === slug))
      .map(
        ({ slug, version }): Step => ({
          ...base,
          kind: "destination",
          action,
          id: slug,
          agent: "",
          version,
          note: "",
        }),
      ),
    ...[...state.platforms.values()]
      .filter(({ stableId }) => !platforms.has(stableId))
      .map(
        ({ stableId, agentId, version, status }): Step => ({
          ...base,
          kind: "platform",
          action,
          id: stableId,
          agent: agentId,
          version,
          note: action === "delete" && status === PlatformStatus.RUNNING ? "it runs, and is stopped" : "",
        }),
      ),
    ...[...state.agents.values()]
      .filter(({ id }) => !agents.has(id))
      .map(
        ({ id, version, isDefault }): Step => ({
          ...base,
          kind: "agent",
          // The server refuses to delete its default agent.
          action: isDefault ? "drift" : action,
          id,
          agent: id,
          changed: [],
          version,
          note: isDefault ? "is not in the file; the org's default agent stays" : "",
        }),
      ),
  ];
}
