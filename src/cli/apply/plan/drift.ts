import { PlatformStatus } from "#gen/pinion/v1/agent_pb.js";
import type { Desired } from "../file/desired.ts";
import type { OrgState } from "../state.ts";
import type { Step } from "./steps.ts";

/** Objects in the org but not in the file, in an order safe for deletion. Pure. */
export function driftSteps(desired: Desired, state: OrgState, action: "drift" | "delete"): Step[] {
  return [
    ...others(state.hooks, desired.hooks.map(slugOf)).map(
      ({ slug, version }): Step => ({
        ...{ ...step, kind: "hook", action, id: slug, version, changed: [], isSecretNew: false },
      }),
    ),
    ...others(state.watchers, desired.watchers.map(slugOf)).map(
      ({ slug, spec, version }): Step => ({
        ...{ ...step, kind: "watcher", action, id: slug, version, changed: [] },
        agent: spec?.agentId ?? "",
      }),
    ),
    ...others(state.destinations, desired.destinations.map(slugOf)).map(
      ({ slug, version }): Step => ({ ...step, kind: "destination", action, id: slug, version }),
    ),
    ...others(state.platforms, desired.platforms.map(idOf)).map(
      ({ stableId, agentId, version, status }): Step => ({
        ...{ ...step, kind: "platform", action, id: stableId, agent: agentId, version },
        note: action === "delete" && status === PlatformStatus.RUNNING ? "it runs, and is stopped" : "",
      }),
    ),
    ...others(state.agents, desired.agents.map(idOf)).map(
      ({ id, version, isDefault }): Step => ({
        ...{ ...step, kind: "agent", id, agent: id, changed: [], version },
        // The server refuses to delete its default agent.
        action: isDefault ? "drift" : action,
        note: isDefault ? "is not in the file; the org's default agent stays" : "",
      }),
    ),
  ];
}

/** The fields of every step about an object that is not in the file. */
const step = { agent: "", fields: [], willRestart: false, note: "" };

const slugOf = ({ slug }: { slug: string }) => slug;
const idOf = ({ id }: { id: string }) => id;

/** The objects whose names are not wanted. */
function others<Item>(objects: ReadonlyMap<string, Item>, wanted: string[]): Item[] {
  const names = new Set(wanted);
  return [...objects].filter(([name]) => !names.has(name)).map(([, item]) => item);
}
