import type { ChildProcess } from "node:child_process";
import { readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { codeOf } from "../../../errors.ts";
import type { Logger } from "../../../telemetry/log.ts";
import { within } from "../../../time/abort.ts";
import type { Account, Binaries } from "./place.ts";
import { commandLine } from "./process.ts";

export const readyPollMs = 25;

export type Cluster = {
  dataDir: string;
  /** PostgreSQL's own directory. */
  place: string;
  account: Account | undefined;
  binaries: Binaries;
  password: string;
  log: Logger | undefined;
};

/**
 * The PostgreSQL that already runs on the cluster, by postmaster.pid; an outdated file is removed.
 */
export async function findOrphan(cluster: Cluster): Promise<{ pid: number; port: number } | undefined> {
  const file = join(cluster.place, "postmaster.pid");
  const lines = (await readTextOrUndefined(file))?.split("\n");
  if (lines === undefined) return undefined;
  // Line 1 is the process, line 4 the port (PostgreSQL's src/include/utils/pidfile.h).
  const pid = Number(lines[0]);
  const port = Number(lines[3]);
  if (pid > 0 && port > 0 && (await isPostmasterOf(pid, cluster.place))) return { pid, port };
  // In a container another process has the same number after a restart, and PostgreSQL would wait
  // for its end.
  await rm(file, { force: true });
  return undefined;
}

async function isPostmasterOf(pid: number, place: string): Promise<boolean> {
  return (await commandLine(pid))?.includes(` -D ${place} `) ?? false;
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === "EPERM";
  }
}

/**
 * Fast: ends connections and writes all out. Immediate: recovers at the next start. Then without
 * being asked.
 */
const stopSteps = [
  ["SIGINT", 15_000],
  ["SIGQUIT", 3_000],
  ["SIGKILL", 2_000],
] as const;

export async function stopChild(cluster: Cluster, child: ChildProcess): Promise<void> {
  const ended = new Promise<true>((done) => {
    child.once("exit", () => done(true));
  });
  child.ref();
  for (const [signal, timeoutMs] of stopSteps) {
    if (child.exitCode !== null || child.signalCode !== null) return;
    if (signal !== "SIGINT") cluster.log?.warn({ signal }, "the embedded PostgreSQL does not stop");
    child.kill(signal);
    if (await within(ended, timeoutMs)) return;
  }
}

/** For a process that is no child, whose end raises no event: polls until the process is gone. */
export async function stopPid(cluster: Cluster, pid: number): Promise<void> {
  for (const [signal, timeoutMs] of stopSteps) {
    if (!(await isPostmasterOf(pid, cluster.place))) return;
    kill(pid, signal);
    const deadline = performance.now() + timeoutMs;
    while (performance.now() < deadline) {
      if (!(await isPostmasterOf(pid, cluster.place))) return;
      await delay(readyPollMs);
    }
  }
}

function kill(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // The process ended by itself.
  }
}

export function readTextOrUndefined(file: string): Promise<string | undefined> {
  return readFile(file, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
    throw error;
  });
}
