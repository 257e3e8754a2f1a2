import { Code, ConnectError } from "@connectrpc/connect";
import type { Clients } from "../context.ts";
import { exitCodes, explain, Failure } from "../failures.ts";
import { inParallel } from "./in-parallel.ts";
import type { Step } from "./plan.ts";
import { createAgent, createWatcher, updateAgent, updateWatcher, upsertPlatform } from "./requests.ts";

/** Writes under way at once within a group. A platform's write lasts as long as its start. */
const parallelMax = 4;

/** `stale`: somebody else was faster, and what was planned is to be planned again. */
export type Outcome = "done" | "stale";

/**
 * Does the steps of a plan, group by group: agents, platforms, watchers, then deletions the other way round. Within a
 * group the order does not matter. Nothing is begun after the signal; what is under way ends. What was written stays
 * written: a plan that is made again has what is left. Fails at the first write that the server turns down.
 */
export async function execute(
  clients: Clients,
  steps: readonly Step[],
  options: { signal: AbortSignal; onStep(step: Step, outcome: Outcome): void },
): Promise<{ isStale: boolean }> {
  let isStale = false;
  for (const group of groups(steps)) {
    await inParallel(group, { parallelMax, signal: options.signal }, async (step) => {
      const outcome = await write(clients, step);
      if (outcome === "stale") isStale = true;
      options.onStep(step, outcome);
    });
    // What comes after may need what could not be written.
    if (isStale) break;
  }
  return { isStale };
}

function groups(steps: readonly Step[]): Step[][] {
  const writes = (kind: Step["kind"]) =>
    steps.filter((step) => step.kind === kind && (step.action === "create" || step.action === "update"));
  const deletions = (kind: Step["kind"]) =>
    steps.filter((step) => step.kind === kind && step.action === "delete");
  return [
    writes("agent"),
    writes("platform"),
    writes("watcher"),
    deletions("watcher"),
    deletions("platform"),
    deletions("agent"),
  ];
}

async function write(clients: Clients, step: Step): Promise<Outcome> {
  try {
    return step.action === "delete" ? await remove(clients, step) : await put(clients, step);
  } catch (error) {
    if (isStaleness(error)) return "stale";
    const { message, exitCode } = explain(error, undefined);
    throw new Failure(
      exitCode === exitCodes.interrupted ? exitCodes.failed : exitCode,
      `${step.kind} ${step.id}: ${message}`,
      "what was written before stays; run it again when this is mended, and it goes on from there",
    );
  }
}

async function put(clients: Clients, step: Step): Promise<Outcome> {
  if (!step.wanted) throw new Error(`nothing is wanted of ${step.kind} ${step.id}`);
  if (step.kind === "agent") {
    if (step.action === "update") {
      await clients.agents.updateAgentSettings(updateAgent(step.wanted, step));
      return "done";
    }
    // One that somebody else has just created may have other settings.
    return (await clients.agents.createAgent(createAgent(step.wanted))).created ? "done" : "stale";
  }
  if (step.kind === "platform") {
    await clients.agents.upsertPlatform(upsertPlatform(step.wanted, step.version));
    return "done";
  }
  if (step.action === "update") await clients.watchers.updateWatcher(updateWatcher(step.wanted, step));
  else await clients.watchers.createWatcher(createWatcher(step.wanted));
  return "done";
}

async function remove(clients: Clients, step: Step): Promise<Outcome> {
  try {
    if (step.kind === "agent") await clients.agents.deleteAgent({ agentId: step.id });
    else if (step.kind === "platform") await clients.agents.deletePlatform({ stableId: step.id });
    else await clients.watchers.deleteWatcher({ watcherId: step.id });
  } catch (error) {
    // Gone is gone, whoever removed it.
    if (!(error instanceof ConnectError) || error.code !== Code.NotFound) throw error;
  }
  return "done";
}

/** Not there any more, there already, or changed since it was read. */
function isStaleness(error: unknown): boolean {
  const codes = [Code.Aborted, Code.AlreadyExists, Code.NotFound];
  return error instanceof ConnectError && codes.includes(error.code);
}
