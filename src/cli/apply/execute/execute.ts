import { Code, ConnectError } from "@connectrpc/connect";
import type { Clients } from "../../context.ts";
import { explain } from "../../failures.ts";
import { wavesOf } from "../plan/chains.ts";
import type { Step, WatcherStep } from "../plan/steps.ts";
import { batchesMax, batchesOf, upsertBatch } from "./batches.ts";
import { inParallel } from "./in-parallel.ts";
import {
  createAgent,
  createDestination,
  createHook,
  createWatcher,
  labelDevice,
  updateAgent,
  updateDestination,
  updateHook,
  updateWatcher,
  upsertPlatform,
} from "./requests.ts";

/**
 * Maximum of parallel writes within a group. Platforms go in batches, each as slow as its slowest
 * start.
 */
const parallelMax = 4;

/**
 * Outcome of a step. `stale`: another writer was faster, and the step needs a new plan. `failed`:
 * the server refused the write, for example a platform whose start failed.
 */
export type Outcome = { is: "done" } | { is: "stale" } | { is: "failed"; message: string };

/**
 * Executes the steps of a plan, group by group: devices, agents, destinations, platforms, watchers
 * in waves (see `wavesOf`), hooks, then deletions of hooks, watchers, destinations, platforms,
 * agents. Within a group the
 * order does not matter. After the signal no step starts; running steps end. Finished writes stay:
 * a new plan has the remaining steps. A failed step holds back only the steps with a possible
 * dependency: all later steps for an agent, and every deletion. Rejects if the server is not
 * reachable.
 */
export async function execute(
  clients: Clients,
  steps: readonly Step[],
  options: { signal: AbortSignal; onStep(step: Step, outcome: Outcome): void },
): Promise<{ isStale: boolean; hasFailed: boolean }> {
  let [isStale, hasFailed] = [false, false];
  for (const group of groups(steps)) {
    if (hasFailed && group.some(({ action }) => action === "delete")) break;
    const { signal } = options;
    const settle = async (step: Step, write: () => Promise<Outcome>) => {
      const outcome = await outcomeOf(write);
      if (outcome.is === "stale") isStale = true;
      if (outcome.is === "failed") hasFailed = true;
      options.onStep(step, outcome);
    };
    const drafts = group.flatMap((step) =>
      step.kind === "platform" && step.action !== "delete" && step.wanted
        ? [{ item: step, request: upsertPlatform(step.wanted, step.version) }]
        : [],
    );
    if (drafts.length > 0) {
      await inParallel(batchesOf(drafts), { parallelMax: batchesMax, signal }, (batch) =>
        upsertBatch(clients, batch, {}, (step, answer) =>
          settle(step, async () => {
            await answer();
            return { is: "done" };
          }),
        ),
      );
    } else {
      await inParallel(group, { parallelMax, signal }, (step) =>
        settle(step, () => (step.action === "delete" ? remove(clients, step) : put(clients, step))),
      );
    }
    if (isStale || (hasFailed && group[0]?.kind === "agent")) break;
  }
  return { isStale, hasFailed };
}

function groups(steps: readonly Step[]): Step[][] {
  const writes = (kind: Step["kind"]) =>
    steps.filter((step) => step.kind === kind && (step.action === "create" || step.action === "update"));
  const deletions = (kind: Step["kind"]) =>
    steps.filter((step) => step.kind === kind && step.action === "delete");
  return [
    writes("device"),
    writes("agent"),
    writes("destination"),
    writes("platform"),
    ...wavesOf(writes("watcher") as WatcherStep[]).waves,
    writes("hook"),
    deletions("hook"),
    deletions("watcher"),
    deletions("destination"),
    deletions("platform"),
    deletions("agent"),
  ];
}

async function outcomeOf(write: () => Promise<Outcome>): Promise<Outcome> {
  try {
    return await write();
  } catch (error) {
    if (isOneOf(error, stale)) return { is: "stale" };
    if (isOneOf(error, turnedDown)) return { is: "failed", message: explain(error, undefined).message };
    throw error;
  }
}

/** The object is gone, exists already, or has changed since the read. */
const stale = [Code.Aborted, Code.AlreadyExists, Code.NotFound];
const turnedDown = [Code.FailedPrecondition, Code.InvalidArgument, Code.OutOfRange];

function isOneOf(error: unknown, codes: readonly Code[]): boolean {
  return error instanceof ConnectError && codes.includes(error.code);
}

async function put(clients: Clients, step: Step): Promise<Outcome> {
  if (!step.wanted) throw new Error(`nothing is wanted of ${step.kind} ${step.id}`);
  if (step.kind === "agent") {
    if (step.action === "update") {
      await clients.agents.updateAgentSettings(updateAgent(step.wanted, step));
      return { is: "done" };
    }
    // An agent created meanwhile by another caller may have other settings.
    const { created } = await clients.agents.createAgent(createAgent(step.wanted));
    if (!created) return { is: "stale" };
    // The device is set after the creation; after an interruption the next apply sets the device.
    const { device } = step.wanted.fields;
    if (device) {
      await clients.agents.updateAgentSettings(updateAgent(step.wanted, { changed: ["device"], version: 0 }));
    }
    return { is: "done" };
  }
  if (step.kind === "platform") throw new Error("platforms are written in batches");
  if (step.kind === "destination") {
    if (step.action === "update")
      await clients.destinations.updateDestination(updateDestination(step.wanted, step.version));
    else await clients.destinations.createDestination(createDestination(step.wanted));
    return { is: "done" };
  }
  if (step.kind === "hook") {
    if (step.action === "update") await clients.hooks.updateHook(updateHook(step.wanted, step));
    else await clients.hooks.createHook(createHook(step.wanted));
    return { is: "done" };
  }
  if (step.kind === "device") {
    await clients.fleet.labelDevice(labelDevice(step));
    return { is: "done" };
  }
  if (step.action === "update") await clients.watchers.updateWatcher(updateWatcher(step.wanted, step));
  else await clients.watchers.createWatcher(createWatcher(step.wanted));
  return { is: "done" };
}

async function remove(clients: Clients, step: Step): Promise<Outcome> {
  try {
    if (step.kind === "agent") await clients.agents.deleteAgent({ agentId: step.id });
    else if (step.kind === "destination")
      await clients.destinations.deleteDestination({ destinationId: step.id });
    else if (step.kind === "hook") await clients.hooks.deleteHook({ hookId: step.id });
    else if (step.kind === "platform") await clients.agents.deletePlatform({ stableId: step.id });
    else await clients.watchers.deleteWatcher({ watcherId: step.id });
  } catch (error) {
    // An object already deleted counts as deleted.
    if (!isOneOf(error, [Code.NotFound])) throw error;
  }
  return { is: "done" };
}
