import { randomUUID } from "node:crypto";
import { link, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { DeviceError, hasCode } from "../device/errors.ts";
import { identityOfDirectory } from "../private-directory.ts";
import { isAlive, startTimeOf } from "../process-table.ts";
import { readRegularFile } from "../regular-file.ts";
import { removeTree } from "../remove-tree.ts";

interface Holder {
  pid: number;
  startTime?: string;
  /** The locked directory; another one in a lock that came with a copy of the directory. */
  directory?: string;
}

/** Bound on the lock file in bytes; its content is a process id and a start time. */
const LOCK_BYTES_MAX = 4096;
/** Maximum of takeovers of stale locks; more than one happens only when daemons start together. */
const TAKEOVERS_MAX = 5;

/**
 * Locks the state directory for this process. A lock is taken over if its process is dead or its
 * process id belongs to another process by now. Throws DeviceError `locked` if a living daemon
 * holds the lock. A lock that was copied from another directory is a stale lock.
 */
export async function lockStateDir(stateDir: string): Promise<{ release(): Promise<void> }> {
  const path = join(stateDir, "daemon.lock");
  const startTime = await startTimeOf(process.pid);
  const directory = await identityOfDirectory(stateDir);
  const mine = JSON.stringify({
    pid: process.pid,
    directory,
    ...(startTime === undefined ? {} : { startTime }),
  });
  const candidate = `${path}.${randomUUID()}`;
  try {
    await writeFile(candidate, mine, { mode: 0o600 });
    for (let takeovers = 0; takeovers < TAKEOVERS_MAX; takeovers++) {
      if (await tryLink(candidate, path)) return { release: () => release(path, mine) };
      const content = await read(path);
      if (content === undefined) continue;
      const holder = parse(content);
      if (holder !== undefined && (await isHeld(holder, directory))) {
        throw new DeviceError(
          "locked",
          `another daemon (process ${holder.pid}) runs with ${stateDir}; stop it first, or use another state directory`,
        );
      }
      await breakLock(path, content);
    }
  } finally {
    await rm(candidate, { force: true });
  }
  throw new DeviceError("locked", `the lock of ${stateDir} changes hands all the time; try again`);
}

/** Process id of the daemon that holds the directory's lock; undefined if no living daemon does. */
export async function daemonPid(stateDir: string): Promise<number | undefined> {
  try {
    const holder = parse((await read(join(stateDir, "daemon.lock"))) ?? "");
    if (holder === undefined) return undefined;
    return (await isHeld(holder, await identityOfDirectory(stateDir))) ? holder.pid : undefined;
  } catch {
    return undefined;
  }
}

/** A link appears together with its content, so readers never see a partial lock. */
async function tryLink(candidate: string, path: string): Promise<boolean> {
  try {
    await link(candidate, path);
    return true;
  } catch (error) {
    if (hasCode(error, "EEXIST")) return false;
    throw error;
  }
}

async function isHeld(holder: Holder, directory: string): Promise<boolean> {
  if (holder.directory !== undefined && holder.directory !== directory) return false;
  if (!isAlive(holder.pid)) return false;
  if (holder.startTime === undefined) return true;
  return (await startTimeOf(holder.pid)) === holder.startTime;
}

/**
 * Moves the stale lock away. If another process has taken the lock over meanwhile, the lock is put
 * back.
 */
async function breakLock(path: string, stale: string): Promise<void> {
  const grave = `${path}.${randomUUID()}`;
  try {
    await rename(path, grave);
  } catch (error) {
    if (hasCode(error, "ENOENT")) return;
    throw error;
  }
  const moved = (await read(grave)) ?? stale;
  if (moved !== stale) await tryLink(grave, path);
  await removeTree(grave);
}

async function release(path: string, mine: string): Promise<void> {
  const content = await read(path);
  if (content === mine) await rm(path, { force: true });
}

/**
 * Undefined if there is no lock. Another kind of file, and a link, count as a lock without a
 * holder.
 */
async function read(path: string): Promise<string | undefined> {
  const found = await readRegularFile(path, { bytesMax: LOCK_BYTES_MAX });
  if (found.kind === "read") return found.bytes.toString("utf8");
  const isLink = found.kind === "unreadable" && found.isLink === true;
  return found.kind === "unfit" || isLink ? "" : undefined;
}

function parse(content: string): Holder | undefined {
  try {
    const value: unknown = JSON.parse(content);
    if (typeof value !== "object" || value === null || !("pid" in value) || typeof value.pid !== "number")
      return;
    return {
      pid: value.pid,
      ...("startTime" in value && typeof value.startTime === "string" ? { startTime: value.startTime } : {}),
      ...("directory" in value && typeof value.directory === "string" ? { directory: value.directory } : {}),
    };
  } catch {
    return undefined;
  }
}
