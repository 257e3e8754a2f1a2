import { PinionError } from "@pinion/client";
import { UpsertOutcome, type UpsertPlatformResponse } from "#gen/pinion/v1/agent_pb.js";
import type { Clients } from "../../context.ts";
import { Failure } from "../../failures.ts";
import { deviceAmong } from "../../lookup.ts";
import { agentFieldNames } from "../fields/agent-fields.ts";
import type {
  Desired,
  DesiredAgent,
  DesiredDestination,
  DesiredHook,
  DesiredPlatform,
  DesiredWatcher,
} from "../file/desired.ts";
import type { KeyPath } from "../file/places.ts";
import type { Problem } from "../file/problems.ts";
import { deviceStep } from "../plan/device-plan.ts";
import { hookVerdict } from "../plan/hook-plan.ts";
import { verdictName } from "../plan/plan.ts";
import type { Kind, Verdict } from "../plan/steps.ts";
import type { OrgState } from "../state.ts";
import { batchesMax, batchesOf, upsertBatch } from "./batches.ts";
import { inParallel } from "./in-parallel.ts";
import {
  createAgent,
  createDestination,
  updateAgent,
  updateDestination,
  upsertPlatform,
} from "./requests.ts";
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
  const agents = only.has("agent") ? desired.agents.map(pinnedTo(state)) : withoutProblems(desired.agents);
  const watchers = only.has("watcher")
    ? desired.watchers.map(pinnedTo(state))
    : withoutProblems(desired.watchers);
  const platforms = only.has("platform") ? desired.platforms : [];
  const { hooks, devices, problems } = resolveHooks(desired, state, scope);
  const resolved = {
    ...{ ...desired, hooks, devices },
    agents: agents.map(({ item }) => item),
    watchers: watchers.map(({ item }) => item),
  };
  return {
    desired: resolved,
    problems: [
      ...agents.flatMap((agent) => agent.problems),
      ...(only.has("agent") ? resolved.agents.flatMap((agent) => workerProblems(agent, state)) : []),
      ...watchers.flatMap((watcher) => watcher.problems),
      ...platforms.flatMap((platform) => takenProblems(platform, state)),
      ...(only.has("agent") ? [] : unknownAgents(platforms, only.has("watcher") ? watchers : [], state)),
      ...problems,
    ],
  };
}

type Resolved<Item> = { item: Item; problems: Problem[] };

const withoutProblems = <Item>(items: Item[]): Resolved<Item>[] =>
  items.map((item) => ({ item, problems: [] }));

/** Replaces the name of a device by its id. */
const pinnedTo =
  (state: OrgState) =>
  <Item extends { path: KeyPath; fields: { device?: string } }>(item: Item): Resolved<Item> => {
    const named = item.fields.device;
    if (!named) return { item, problems: [] };
    try {
      const { id } = deviceAmong(state.devices, named);
      return { item: { ...item, fields: { ...item.fields, device: id } }, problems: [] };
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      const message = [error.message, error.advice].filter(Boolean).join("; ");
      return { item, problems: [{ path: [...item.path, "device"], message }] };
    }
  };

/** An agent is not pinned to a fleet worker. */
function workerProblems({ path, fields }: DesiredAgent, state: OrgState): Problem[] {
  const device = state.devices.find(({ id }) => id === fields.device);
  if (!device?.isWorker) return [];
  const message = `"${device.label}" is a fleet worker, and takes what is pinned to nobody; name a device, or leave it out`;
  return [{ path: [...path, "device"], message }];
}

/** A platform's id belongs to one agent, and its kind stays. */
function takenProblems(platform: DesiredPlatform, state: OrgState): Problem[] {
  const current = state.platforms.get(platform.id);
  if (current && current.agentId !== platform.agent) {
    const message = `the org has a platform "${platform.id}" already, of the agent "${current.agentId}"; take another id, or remove that one first`;
    return [{ path: [...platform.path, "id"], message }];
  }
  if (current && current.kind !== platform.kind) {
    const message = `is "${current.kind}" on the server, and a platform's kind stays; take another id, or remove that one first`;
    return [{ path: [...platform.path, "kind"], message }];
  }
  return [];
}

/** Agents that platforms and watchers need and that the org does not have. */
function unknownAgents(
  platforms: readonly DesiredPlatform[],
  watchers: readonly Resolved<DesiredWatcher>[],
  state: OrgState,
): Problem[] {
  return [...platforms, ...watchers.map(({ item }) => item)]
    .filter(({ path }) => !state.agents.has(String(path[1])))
    .map(({ path }) => ({
      path: path.slice(0, 2),
      message: "there is no such agent yet, and --only leaves agents out",
    }));
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
  { only, signal }: { only: ReadonlySet<Kind>; signal: AbortSignal },
): Promise<Findings> {
  const findings: Findings = { verdicts: new Map(), problems: [], mayBeStale: false };
  const { verdicts } = findings;
  const each = <Item extends { path: KeyPath }>(
    kind: Kind,
    items: Item[],
    ask: (item: Item) => Promise<void>,
    fieldOf?: (field: string) => string,
  ) =>
    inParallel(only.has(kind) ? items : [], { parallelMax, signal }, (item) =>
      asking(findings, item.path, () => ask(item), fieldOf),
    );
  await each("agent", desired.agents, (agent) => checkAgent(clients, agent, state, signal));
  if (only.has("platform")) await checkPlatforms(clients, desired.platforms, { state, findings, signal });
  await each("destination", desired.destinations, async (destination) => {
    const version = state.destinations.get(destination.slug)?.version;
    const outcome = await checkDestination(clients, destination, version, signal);
    verdicts.set(verdictName(destination.slug), { outcome, willRestart: false, changedFields: [] });
  });
  const ask = async (hook: DesiredHook) => {
    const outcome = await checkHook(clients, hook, state, signal);
    verdicts.set(hookVerdict(hook.slug), { outcome, willRestart: false, changedFields: [] });
  };
  await each("hook", desired.hooks, ask, hookFieldOf);
  await each("device", desired.devices, (device) => checkLabels(clients, deviceStep(device, state), signal));
  return findings;
}

type Findings = { verdicts: Map<string, Verdict>; problems: Problem[]; mayBeStale: boolean };

/** Asks the server, and turns a refusal into a problem of the file. */
async function asking(
  findings: Findings,
  path: KeyPath,
  ask: () => Promise<void>,
  fieldOf?: (field: string) => string,
): Promise<void> {
  try {
    await ask();
  } catch (error) {
    const problem = problemOf(error, path, fieldOf);
    if (!problem) throw error;
    findings.problems.push(problem);
    findings.mayBeStale ||= isContradiction(error);
  }
}

async function checkPlatforms(
  clients: Clients,
  platforms: readonly DesiredPlatform[],
  { state, findings, signal }: { state: OrgState; findings: Findings; signal: AbortSignal },
): Promise<void> {
  const drafts = platforms.flatMap((platform) => {
    // A platform of an agent not yet created is checked with another agent: the rules depend on the
    // kind.
    const stand = state.agents.has(platform.agent) ? platform.agent : state.agents.keys().next().value;
    if (stand !== undefined) {
      const request = { ...upsertPlatform({ ...platform, agent: stand }, 0), dryRun: true };
      return [{ item: platform, request }];
    }
    findings.verdicts.set(platform.id, { outcome: "created", willRestart: false, changedFields: [] });
    return [];
  });
  await inParallel(batchesOf(drafts), { parallelMax: batchesMax, signal }, (batch) =>
    upsertBatch(clients, batch, { signal }, (platform, settle) =>
      asking(findings, platform.path, async () => {
        findings.verdicts.set(platform.id, verdictOf(await settle()));
      }),
    ),
  );
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
  return after?.version === version ? "noop" : "updated";
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
