import { execFile } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { hasCode } from "./device/errors.ts";

/** Time limit of `ps` on systems without /proc, in ms. */
const PS_DEADLINE_MS = 5_000;

/**
 * Start time of a process, as a text unique among all processes with the same id; undefined if
 * there is no such process or the system gives no time. Protects against reused process ids.
 */
export async function startTimeOf(pid: number): Promise<string | undefined> {
  if (process.platform === "linux") return linuxStartTime(pid);
  if (process.platform === "win32") return undefined;
  return new Promise((resolve) => {
    execFile(
      "ps",
      ["-o", "lstart=", "-p", String(pid)],
      { timeout: PS_DEADLINE_MS, env: { PATH: "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" } },
      (error, stdout) => resolve(error === null && stdout.trim() !== "" ? stdout.trim() : undefined),
    );
  });
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return hasCode(error, "EPERM");
  }
}

/**
 * True for a child of this process that has ended, before Node has told so (Linux; false
 * elsewhere).
 */
export function hasEnded(childPid: number): boolean {
  if (process.platform !== "linux") return false;
  const state = linuxStat(childPid)?.state;
  return state === "Z" || state === "X";
}

/** True if any process of the group lives. On Linux, zombies do not count. */
export function isGroupAlive(groupId: number): boolean {
  if (!isAlive(-groupId)) return false;
  if (process.platform !== "linux") return true;
  // Without the table, zombies count as alive: the group is then given the whole of its time to
  // end.
  const members = membersOf(groupId);
  return members === undefined || members.length > 0;
}

/**
 * Start time of a process in ticks since boot; undefined without /proc, or without such a process.
 */
export function startTicksOf(pid: number): number | undefined {
  const ticks = process.platform === "linux" ? linuxStat(pid)?.startTicks : undefined;
  return ticks === undefined ? undefined : Number(ticks);
}

/**
 * Living descendants of a process, without the process itself, parents before children (Linux;
 * empty elsewhere).
 */
export function descendantsOf(pid: number): number[] {
  if (process.platform !== "linux") return [];
  const children = new Map<number, number[]>();
  for (const each of linuxProcesses() ?? []) {
    const stat = linuxStat(each);
    if (stat === undefined || stat.state === "Z" || stat.state === "X") continue;
    const siblings = children.get(stat.parentId);
    if (siblings === undefined) children.set(stat.parentId, [each]);
    else siblings.push(each);
  }
  const found: number[] = [];
  const next = [pid];
  for (let at = next.shift(); at !== undefined; at = next.shift()) {
    const own = children.get(at) ?? [];
    found.push(...own);
    next.push(...own);
  }
  return found;
}

/** Living processes of a group (Linux); undefined if the table cannot be read. */
function membersOf(groupId: number): number[] | undefined {
  return linuxProcesses()?.filter((pid) => {
    const stat = linuxStat(pid);
    return stat !== undefined && stat.groupId === groupId && stat.state !== "Z" && stat.state !== "X";
  });
}

/**
 * Living processes whose environment has all of `variables` (Linux; empty elsewhere). Finds
 * processes outside their process group. Excludes this process, its ancestors, and processes older
 * than `sinceTicks`.
 */
export function processesWithEnvironment(
  variables: Record<string, string | undefined>,
  options: { sinceTicks?: number | undefined } = {},
): number[] {
  if (process.platform !== "linux") return [];
  const wanted = Object.entries(variables).map(([name, value]) =>
    value === undefined ? `${name}=` : `${name}=${value}`,
  );
  const spared = ancestors();
  return (linuxProcesses() ?? []).filter((pid) => {
    if (spared.has(pid)) return false;
    const stat = linuxStat(pid);
    if (stat === undefined || stat.state === "Z") return false;
    if (options.sinceTicks !== undefined && Number(stat.startTicks) < options.sinceTicks) return false;
    const environment = readProc(pid, "environ")?.split("\0") ?? [];
    return wanted.every((entry) =>
      entry.endsWith("=") ? environment.some((have) => have.startsWith(entry)) : environment.includes(entry),
    );
  });
}

function ancestors(): Set<number> {
  const found = new Set<number>();
  let pid: number | undefined = process.pid;
  while (pid !== undefined && pid > 0 && !found.has(pid)) {
    found.add(pid);
    pid = linuxStat(pid)?.parentId;
  }
  return found;
}

/**
 * Undefined if the system refuses the read, as when it has no file descriptor left: a result must
 * not be lost for it.
 */
function linuxProcesses(): number[] | undefined {
  try {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map(Number);
  } catch {
    return undefined;
  }
}

function linuxStartTime(pid: number): string | undefined {
  const stat = linuxStat(pid);
  if (stat === undefined || stat.state === "Z" || stat.state === "X") return undefined;
  // Ticks count from the boot, so the boot id is needed for a unique time.
  return `${bootId()}:${stat.startTicks}`;
}

let knownBootId: string | undefined;
function bootId(): string {
  knownBootId ??= readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
  return knownBootId;
}

function linuxStat(
  pid: number,
): { state: string; parentId: number; groupId: number; startTicks: string } | undefined {
  const text = readProc(pid, "stat");
  if (text === undefined) return undefined;
  // The second field, the name, is in brackets and may itself hold brackets and spaces (proc(5)).
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const [state, parentId, groupId] = fields;
  const startTicks = fields[19];
  if (state === undefined || startTicks === undefined) return undefined;
  return { state, parentId: Number(parentId), groupId: Number(groupId), startTicks };
}

/**
 * Processes come and go during the scan: a process already gone, or unreadable for us, is no error.
 */
function readProc(pid: number, file: string): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch {
    return undefined;
  }
}
