import { execFile } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { descendantsOf, isGroupAlive, processesWithEnvironment } from "../process-table.ts";

/** How often we look whether a group is gone, in ms. */
const POLL_MS = 20;
/** How long a killed group may take to disappear, in ms; the system needs a moment, never this long. */
const KILLED_GONE_MS = 2_000;

/**
 * Ends a whole process group: SIGTERM, SIGKILL after the grace. Resolves when no process of it is left, at the latest
 * two seconds after SIGKILL. `hurry` cuts the grace short.
 */
export async function endGroup(
  groupId: number,
  options: { graceMs: number; hurry?: AbortSignal; isIsolated?: boolean },
): Promise<void> {
  if (process.platform === "win32") {
    await endTree(groupId);
    return;
  }
  if (!isGroupAlive(groupId)) return;
  if (options.isIsolated === true) {
    // The first is bubblewrap's own, and the first below it the namespace's: with either, all would be killed at once.
    for (const pid of descendantsOf(groupId).slice(1)) signal(pid, "SIGTERM");
  } else signalGroup(groupId, "SIGTERM");
  if (await isGone(() => isGroupAlive(groupId), options.graceMs, options.hurry)) return;
  signalGroup(groupId, "SIGKILL");
  await isGone(() => isGroupAlive(groupId), KILLED_GONE_MS);
}

/** Kills the processes that carry the marker but left their group (Linux). Returns how many there were. */
export async function endEscaped(
  marker: Record<string, string | undefined>,
  options: { sinceTicks?: number | undefined } = {},
): Promise<number> {
  let killed = 0;
  // A process may start another one while we look: until none is left, but not for ever.
  const deadline = performance.now() + KILLED_GONE_MS;
  while (performance.now() < deadline) {
    const found = processesWithEnvironment(marker, options);
    if (found.length === 0) break;
    for (const pid of found) killed += signal(pid, "SIGKILL") ? 1 : 0;
    await sleep(POLL_MS);
  }
  return killed;
}

export function signalGroup(groupId: number, name: NodeJS.Signals): void {
  signal(-groupId, name);
}

function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, name);
  } catch {
    // Gone in the meantime, or not ours to end.
    return false;
  }
}

async function isGone(isAlive: () => boolean, withinMs: number, hurry?: AbortSignal): Promise<boolean> {
  const deadline = performance.now() + withinMs;
  while (isAlive()) {
    if (performance.now() >= deadline || hurry?.aborted === true) return false;
    await sleep(POLL_MS);
  }
  return true;
}

/** Windows has no process groups to signal; `taskkill /T` ends a process with its descendants. */
function endTree(pid: number): Promise<void> {
  return new Promise((resolve) => {
    execFile("taskkill", ["/pid", String(pid), "/T", "/F"], { windowsHide: true }, () => resolve());
  });
}
