import type { Clients } from "../../context.ts";
import { specPaths } from "../fields/watcher-fields.ts";
import type { DesiredWatcher } from "../file/desired.ts";
import type { Problem } from "../file/problems.ts";
import { wavesOf } from "../plan/chains.ts";
import type { Step, WatcherStep } from "../plan/steps.ts";
import type { OrgState } from "../state.ts";
import { inParallel } from "./in-parallel.ts";
import { createWatcher, updateWatcher } from "./requests.ts";
import { isContradiction, problemOf } from "./verify.ts";

/** Maximum of concurrent requests. */
const parallelMax = 8;

/** The file's key for each spec path. */
const fileNames = new Map<string, string>(Object.entries(specPaths).map(([name, path]) => [path, name]));

/**
 * Asks the server about every watcher to write (dry run), and whether the org has room for the new
 * watchers: a refusal then comes before the first write, also of agents and platforms.
 */
export async function verifyWatchers(
  clients: Clients,
  steps: readonly Step[],
  state: OrgState,
  signal: AbortSignal,
): Promise<{ problems: Problem[]; mayBeStale: boolean }> {
  const writes = steps.filter(
    (step): step is Write =>
      step.kind === "watcher" &&
      (step.action === "create" || step.action === "update") &&
      step.wanted !== undefined,
  );
  const { circle } = wavesOf(writes);
  const knot = circle[0]?.wanted;
  if (knot) {
    const { slug, path } = knot;
    return {
      problems: [
        {
          path: [...path, "after"],
          message: `"${slug}" follows itself, over others: a chain must have an end`,
        },
      ],
      mayBeStale: false,
    };
  }
  const coming = new Set(
    steps.flatMap(({ kind, action, id }) => (kind === "destination" && action === "create" ? [id] : [])),
  );
  const creates = writes.filter(({ action }) => action === "create");
  const created = new Set(creates.map((step) => step.wanted.slug));
  const problems: Problem[] = [];
  let mayBeStale = false;
  let room = Number.POSITIVE_INFINITY;
  await inParallel(writes, { parallelMax, signal }, async (step) => {
    const { path } = step.wanted;
    try {
      const left = await ask(clients, step, { state, created, coming }, signal);
      if (left !== undefined) room = Math.min(room, left);
    } catch (error) {
      const problem = problemOf(error, path, fieldOf);
      if (!problem) throw error;
      problems.push(problem);
      mayBeStale ||= isContradiction(error);
    }
  });
  const beyond = creates[room];
  if (beyond) {
    problems.push({
      path: beyond.wanted.path,
      message: `the org has room for ${room} more watchers, and the file makes ${creates.length}; delete some, or have PINION_WATCHERS_PER_ORG raised`,
    });
  }
  return { problems, mayBeStale };
}

/** A step that writes a watcher of the file. */
type Write = WatcherStep & { wanted: DesiredWatcher };

/** Dry run of a watcher; for a new watcher, returns how many more the org may have. */
async function ask(
  clients: Clients,
  step: Write,
  { state, created, coming }: { state: OrgState; created: ReadonlySet<string>; coming: ReadonlySet<string> },
  signal: AbortSignal,
): Promise<number | undefined> {
  // A watcher of an agent not yet created is checked with another agent: the rules are the same.
  const { agent } = step.wanted.fields;
  const stand = state.agents.has(agent) ? agent : (state.agents.keys().next().value ?? "");
  // A watcher that is yet to be created is followed once it is there; the file has no circle.
  const after = step.wanted.fields.after.filter((slug) => state.watchers.has(slug) || !created.has(slug));
  // Destinations not yet created are left out; existing destinations are checked.
  const notify = step.wanted.fields.notify.filter(({ to }) => state.destinations.has(to) || !coming.has(to));
  // A condition belongs to a watcher that is followed.
  const after_condition = after.length === 0 ? "" : step.wanted.fields.after_condition;
  const fields = { ...step.wanted.fields, agent: stand, after, after_condition, notify };
  const wanted = { ...step.wanted, fields };
  if (step.action === "update") {
    await clients.watchers.updateWatcher(
      { ...updateWatcher(wanted, { ...step, version: 0 }), dryRun: true },
      { signal },
    );
    return undefined;
  }
  return (await clients.watchers.createWatcher({ ...createWatcher(wanted), dryRun: true }, { signal }))
    .watchersLeft;
}

function fieldOf(field: string): string {
  const [name = "", ...rest] = field.replace(/^spec\./, "").split(".");
  return [fileNames.get(name) ?? name, ...rest].join(".");
}
