import { execFile } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import { descendantsOf, isGroupAlive, processesWithEnvironment } from "../process-table.ts";

/** Polling interval for the end of a group, in ms. */
const POLL_MS = 20;
/** Time for a killed group to disappear, in ms; the system normally needs far less. */
const KILLED_GONE_MS = 2_000;

/**
 * Ends a whole process group: SIGTERM, then SIGKILL after the grace. Resolves when the group has no
 * process left, at the latest two seconds after SIGKILL. `hurry` ends the grace early.
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
    // The first processes are bubblewrap's and the namespace's init: SIGTERM to either would kill
    // all at once.
    for (const pid of descendantsOf(groupId).slice(1)) signal(pid, "SIGTERM");
  } else signalGroup(groupId, "SIGTERM");
  if (await isGone(() => isGroupAlive(groupId), options.graceMs, options.hurry)) return;
  signalGroup(groupId, "SIGKILL");
  await isGone(() => isGroupAlive(groupId), KILLED_GONE_MS);
}

/**
 * Kills processes with the marker outside their group (Linux). Returns the number of killed
 * processes.
 */
export async function endEscaped(
  marker: Record<string, string | undefined>,
  options: { sinceTicks?: number | undefined } = {},
): Promise<number> {
  let killed = 0;
  // A process may start another during the scan: repeats until none is left, within a deadline.
  const deadline = performance.now() + KILLED_GONE_MS;
  while (performance.now() < deadline) {
    const found = processesWithEnvironment(marker, options);
    if (found.length === 0) break;
    for (const pid of found) killed += signal(pid, "SIGKILL") ? 1 : 0;
    await sleep(POLL_MS);
  }
  return killed;
}

function signalGroup(groupId: number, name: NodeJS.Signals): void {
  signal(-groupId, name);
}

function signal(pid: number, name: NodeJS.Signals): boolean {
  try {
    return process.kill(pid, name);
  } catch {
    // The process has ended, or belongs to another user.
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
