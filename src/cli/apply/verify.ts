import { PinionError } from "@pinion/client";
import { UpsertOutcome, type UpsertPlatformResponse } from "#gen/pinion/v1/agent_pb.js";
import type { Clients } from "../context.ts";
import { Failure } from "../failures.ts";
import { deviceAmong } from "../lookup.ts";
import { agentFieldNames } from "./agent-fields.ts";
import { batchesMax, batchesOf, upsertBatch } from "./batches.ts";
import type { Desired, DesiredAgent, DesiredDestination } from "./desired.ts";
import { deviceStep } from "./device-plan.ts";
import { hookVerdict } from "./hook-plan.ts";
import { inParallel } from "./in-parallel.ts";
import type { KeyPath } from "./places.ts";
import { verdictName } from "./plan.ts";
import type { Problem } from "./problems.ts";
import {
  createAgent,
  createDestination,
  updateAgent,
  updateDestination,
  upsertPlatform,
} from "./requests.ts";
import type { OrgState } from "./state.ts";
import type { Kind, Verdict } from "./steps.ts";
import { checkHook, checkLabels, hookFieldOf, resolveHooks } from "./verify-hooks.ts";

/**
 * Maximum of concurrent requests: enough to hide the network's latency, few enough to spare the
 * server.
 */
const parallelMax = 8;

/** The desired state with device ids, and the problems of names unknown in the org. */
export function resolve(
  desired: Desired,
  state: OrgState,
  scope: { only: ReadonlySet<Kind>; prune: boolean },
): { desired: Desired; problems: Problem[] } {
  const { only } = scope;
  const problems: Problem[] = [];
  const pinned = <Fields extends { device?: string }, Item extends { path: KeyPath; fields: Fields }>(
    item: Item,
  ): Item => {
    const named = item.fields.device;
    if (!named) return item;
    try {
      const { id } = deviceAmong(state.devices, named);
      return { ...item, fields: { ...item.fields, device: id } };
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      problems.push({
        path: [...item.path, "device"],
        message: [error.message, error.advice].filter(Boolean).join("; "),
      });
      return item;
    }
  };
  const agents = only.has("agent") ? desired.agents.map((agent) => pinned(agent)) : desired.agents;
  for (const { path, fields } of agents) {
    const device = only.has("agent") ? state.devices.find(({ id }) => id === fields.device) : undefined;
    if (device?.isWorker) {
      problems.push({
        path: [...path, "device"],
        message: `"${device.label}" is a fleet worker, and takes what is pinned to nobody; name a device, or leave it out`,
      });
    }
  }
  const watchers = only.has("watcher")
    ? desired.watchers.map((watcher) => pinned(watcher))
    : desired.watchers;
  for (const platform of only.has("platform") ? desired.platforms : []) {
    const current = state.platforms.get(platform.id);
    if (current && current.agentId !== platform.agent) {
      problems.push({
        path: [...platform.path, "id"],
        message: `the org has a platform "${platform.id}" already, of the agent "${current.agentId}"; take another id, or remove that one first`,
      });
    } else if (current && current.kind !== platform.kind) {
      problems.push({
        path: [...platform.path, "kind"],
        message: `is "${current.kind}" on the server, and a platform's kind stays; take another id, or remove that one first`,
      });
    }
  }
  if (!only.has("agent")) {
    const needed = [
      ...(only.has("platform") ? desired.platforms : []),
      ...(only.has("watcher") ? watchers : []),
    ];
    for (const { path } of needed) {
      const agent = String(path[1]);
      if (!state.agents.has(agent)) {
        problems.push({
          path: path.slice(0, 2),
          message: "there is no such agent yet, and --only leaves agents out",
        });
      }
    }
  }
  const { hooks, devices, problems: further } = resolveHooks(desired, state, scope);
  problems.push(...further);
  return { desired: { ...desired, agents, watchers, hooks, devices }, problems };
}

/**
 * Asks the server about every agent and platform of the file (dry run): the effect, and refusals,
 * so a refusal comes before the first write. `mayBeStale`: some problems may come from changes
 * since the read of the state.
 */
export async function verify(
  clients: Clients,
  desired: Desired,
  state: OrgState,
  options: { only: ReadonlySet<Kind>; signal: AbortSignal },
): Promise<{ verdicts: Map<string, Verdict>; problems: Problem[]; mayBeStale: boolean }> {
  const verdicts = new Map<string, Verdict>();
  const problems: Problem[] = [];
  const { only, signal } = options;
  let mayBeStale = false;
  const asking = async (
    path: Problem["path"],
    ask: () => Promise<void>,
    fieldOf?: (field: string) => string,
  ) => {
    try {
      await ask();
    } catch (error) {
      const problem = problemOf(error, path, fieldOf);
      if (!problem) throw error;
      problems.push(problem);
      mayBeStale ||= isContradiction(error);
    }
  };
  await inParallel(only.has("agent") ? desired.agents : [], { parallelMax, signal }, (agent) =>
    asking(agent.path, () => checkAgent(clients, agent, state, signal)),
  );
  const wanted = only.has("platform") ? desired.platforms : [];
  const drafts = wanted.flatMap((platform) => {
    // A platform of an agent not yet created is checked with another agent: the rules depend on the
    // kind.
    const stand = state.agents.has(platform.agent) ? platform.agent : state.agents.keys().next().value;
    if (stand !== undefined) {
      const request = { ...upsertPlatform({ ...platform, agent: stand }, 0), dryRun: true };
      return [{ item: platform, request }];
    }
    verdicts.set(platform.id, { outcome: "created", willRestart: false, changedFields: [] });
    return [];
  });
  await inParallel(batchesOf(drafts), { parallelMax: batchesMax, signal }, (batch) =>
    upsertBatch(clients, batch, { signal }, (platform, settle) =>
      asking(platform.path, async () => {
        verdicts.set(platform.id, verdictOf(await settle()));
      }),
    ),
  );
  const destinations = only.has("destination") ? desired.destinations : [];
  await inParallel(destinations, { parallelMax, signal }, (destination) =>
    asking(destination.path, async () => {
      const current = state.destinations.get(destination.slug);
      verdicts.set(verdictName(destination.slug), {
        outcome: await checkDestination(clients, destination, current?.version, signal),
        ...{ willRestart: false, changedFields: [] },
      });
    }),
  );
  await inParallel(only.has("hook") ? desired.hooks : [], { parallelMax, signal }, (hook) =>
    asking(
      hook.path,
      async () => {
        const outcome = await checkHook(clients, hook, state, signal);
        verdicts.set(hookVerdict(hook.slug), { outcome, willRestart: false, changedFields: [] });
      },
      hookFieldOf,
    ),
  );
  const devices = only.has("device") ? desired.devices : [];
  await inParallel(devices, { parallelMax, signal }, (device) =>
    asking(device.path, () => checkLabels(clients, deviceStep(device, state), signal)),
  );
  return { verdicts, problems, mayBeStale };
}

async function checkDestination(
  clients: Clients,
  destination: DesiredDestination,
  version: number | undefined,
  signal: AbortSignal,
): Promise<Verdict["outcome"]> {
  if (version === undefined) {
    await clients.destinations.createDestination(
      { ...createDestination(destination), dryRun: true },
      { signal },
    );
    return "created";
  }
  const { destination: after } = await clients.destinations.updateDestination(
    { ...updateDestination(destination, 0), dryRun: true },
    { signal },
  );
  return after!.version === version ? "noop" : "updated";
}

const contradictions = new Set(["not_found", "already_exists"]);

/** The server contradicts the state read before. */
export function isContradiction(error: unknown): boolean {
  return error instanceof PinionError && contradictions.has(error.reason);
}

async function checkAgent(
  clients: Clients,
  agent: DesiredAgent,
  state: OrgState,
  signal: AbortSignal,
): Promise<void> {
  if (!state.agents.has(agent.id)) {
    await clients.agents.createAgent({ ...createAgent(agent), dryRun: true }, { signal });
    return;
  }
  const changed = agentFieldNames.filter((name) => agent.fields[name] !== undefined);
  if (changed.length === 0) return;
  await clients.agents.updateAgentSettings(
    { ...updateAgent(agent, { changed, version: 0 }), dryRun: true },
    { signal },
  );
}

function verdictOf(answer: UpsertPlatformResponse): Verdict {
  const outcome =
    answer.outcome === UpsertOutcome.CREATED
      ? "created"
      : answer.outcome === UpsertOutcome.NOOP
        ? "noop"
        : "updated";
  return { outcome, willRestart: answer.willRestart, changedFields: answer.changedFields };
}

/** A refusal by the server is a problem of the file; other errors are not. */
export function problemOf(
  error: unknown,
  path: Problem["path"],
  fieldOf: (field: string) => string = (field) =>
    field
      .replace(/^settings\./, "")
      .replace(/^spec\.(webhook|slack|email|platform)\./, "")
      .replace(/^secrets\./, "config.")
      .replace(/^device_id$/, "device"),
): Problem | undefined {
  if (!(error instanceof PinionError)) return undefined;
  const turnedDown = ["invalid_argument", "failed_precondition", "not_found", "already_exists"];
  if (!turnedDown.includes(error.reason)) return undefined;
  const field = fieldOf(error.field ?? "");
  // The file has a single table for settings and secrets.
  const message = error.rawMessage.replaceAll("secrets.", "config.");
  return { path: [...path, ...field.split(".").filter((part) => part !== "")], message };
}
