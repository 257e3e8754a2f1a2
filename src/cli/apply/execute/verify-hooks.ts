import { isUuid } from "../../../values/ids.ts";
import type { Clients } from "../../context.ts";
import { Failure } from "../../failures.ts";
import { deviceAmong } from "../../lookup.ts";
import { fieldsOfHook, hookPaths } from "../fields/hook-fields.ts";
import type { Desired, DesiredDevice, DesiredHook } from "../file/desired.ts";
import type { Problem } from "../file/problems.ts";
import type { Kind, Step, Verdict } from "../plan/steps.ts";
import type { OrgState } from "../state.ts";
import { createHook, labelDevice, updateHook } from "./requests.ts";

/** The file's key for each path of the request. */
const keys = new Map<string, string>([
  ...Object.entries(hookPaths).map(([name, path]) => [path, name] as const),
  ["slug", ""],
]);

export function hookFieldOf(field: string): string {
  const path = field.replace(/^spec\./, "");
  return keys.get(path) ?? path;
}

/**
 * Devices by their ids, hooks' watchers by their slugs, and the problems of names unknown in the
 * org.
 */
export function resolveHooks(
  desired: Desired,
  state: OrgState,
  { only, prune }: { only: ReadonlySet<Kind>; prune: boolean },
): { hooks: DesiredHook[]; devices: DesiredDevice[]; problems: Problem[] } {
  const problems: Problem[] = [];
  const inFile = new Set(desired.watchers.map(({ slug }) => slug));
  const hooks = desired.hooks.map((hook) => {
    const { watcher } = hook.fields;
    const byId = isUuid(watcher)
      ? [...state.watchers.values()].find(({ id }) => id === watcher.toLowerCase())
      : undefined;
    const slug = byId?.slug ?? watcher;
    const path = [...hook.path, "watcher"];
    const comes = only.has("watcher") && inFile.has(slug);
    if (!only.has("hook")) return hook;
    if (!comes && !state.watchers.has(slug)) {
      problems.push({ path, message: `there is no watcher "${slug}", here or on the server` });
    } else if (prune && only.has("watcher") && !inFile.has(slug)) {
      problems.push({
        path,
        message: `the watcher "${slug}" is not in the file, and --prune deletes the watcher with its hooks`,
      });
    }
    const current = state.hooks.get(hook.slug);
    const kind = current && fieldsOfHook(current).kind;
    if (kind !== undefined && kind !== hook.fields.kind) {
      problems.push({
        path: [...hook.path, "kind"],
        message: `is "${kind}" on the server, and a hook's kind stays; take another slug, or remove that one first`,
      });
    }
    return { ...hook, fields: { ...hook.fields, watcher: slug } };
  });
  const devices = (only.has("device") ? desired.devices : []).flatMap((device) => {
    try {
      return [{ ...device, device: deviceAmong(state.devices, device.name).id }];
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      problems.push({ path: device.path, message: [error.message, error.advice].filter(Boolean).join("; ") });
      return [];
    }
  });
  for (const [index, { device, path }] of devices.entries()) {
    const other = devices.slice(0, index).find((earlier) => earlier.device === device);
    if (other) problems.push({ path, message: `is the device "${other.name}" of this file` });
  }
  return { hooks, devices, problems };
}

/**
 * Asks the server about a hook (dry run). The outcome `updated` means: the secret of the file is
 * not the hook's; the other fields are compared here.
 */
export async function checkHook(
  clients: Clients,
  hook: DesiredHook,
  state: OrgState,
  signal: AbortSignal,
): Promise<Verdict["outcome"]> {
  // A hook of a watcher not yet created is checked with another watcher: the rules are the same.
  const { watcher } = hook.fields;
  const stand = state.watchers.has(watcher) ? watcher : state.watchers.keys().next().value;
  const current = state.hooks.get(hook.slug);
  if (stand === undefined) return "created";
  const asked = { ...hook, fields: { ...hook.fields, watcher: stand } };
  if (!current) {
    await clients.hooks.createHook({ ...createHook(asked), dryRun: true }, { signal });
    return "created";
  }
  const all = { changed: Object.keys(hookPaths) as (keyof typeof hookPaths)[], version: 0 };
  await clients.hooks.updateHook({ ...updateHook(asked, all), secret: "", dryRun: true }, { signal });
  if (hook.secret === undefined) return "noop";
  const { hook: after } = await clients.hooks.updateHook(
    { ...updateHook(asked, { changed: [], version: 0 }), dryRun: true },
    { signal },
  );
  return after?.version === current.version ? "noop" : "updated";
}

/** Asks the server about the labels to write (dry run). */
export async function checkLabels(clients: Clients, step: Step, signal: AbortSignal): Promise<void> {
  if (step.kind !== "device" || step.action === "noop") return;
  await clients.fleet.labelDevice({ ...labelDevice(step), dryRun: true }, { signal });
}
