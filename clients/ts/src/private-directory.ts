import { lstatSync, mkdirSync, statSync } from "node:fs";
import { mkdir, rename, stat } from "node:fs/promises";
import { DeviceError, hasCode } from "./device/errors.ts";

const othersMayWrite = 0o022;

/** A directory that another user could change, and the command for the correction. */
export interface DirectoryProblem {
  found: string;
  advice: string;
}

/**
 * The reason why another user of the machine could replace files in an existing directory;
 * undefined for a private directory. A symbolic link counts as its owner's: the owner can point the
 * link elsewhere. Root counts as the same user, because root can write everywhere. Access control
 * lists are not read.
 */
export function directoryProblem(path: string): DirectoryProblem | undefined {
  if (process.platform === "win32") return undefined;
  const mine = new Set([0, process.geteuid?.()]);
  const named = lstatSync(path);
  if (named.isSymbolicLink() && !mine.has(named.uid)) {
    return {
      found: `${path} is a symbolic link of another user (uid ${named.uid}), who can point the link elsewhere`,
      advice: `remove the link, and use a directory of your own: rm '${path}'`,
    };
  }
  const there = statSync(path);
  if (!there.isDirectory()) {
    return { found: `${path} is no directory`, advice: `use another path, or move the file away` };
  }
  if (!mine.has(there.uid)) {
    return {
      found: `${path} belongs to another user (uid ${there.uid}), who may write there`,
      advice: `use a directory of your own, or mend it with: sudo chown -R "$(id -un)" '${path}'`,
    };
  }
  const writers = there.mode & othersMayWrite;
  if (writers === 0) return undefined;
  const who = (there.mode & 0o002) !== 0 ? "everybody" : "the directory's group";
  const mode = (there.mode & 0o7777).toString(8).padStart(4, "0");
  return {
    found: `${who} may write in ${path} (mode ${mode}), and put other files there`,
    advice: `mend it with: chmod 700 '${path}'`,
  };
}

/**
 * Creates a directory with mode 0700. Throws DeviceError `unusable` for an existing directory in
 * which another user could put a false identity or false results.
 */
export async function ensurePrivateDirectory(path: string): Promise<void> {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  }
  const problem = directoryProblem(path);
  if (problem !== undefined) throw new DeviceError("unusable", `${problem.found}; ${problem.advice}`);
}

/**
 * Creates a directory within a private directory, with mode 0700. A file or a broken link in its
 * place, as a program may have made one, is moved aside and not deleted.
 */
export async function ensureDirectory(path: string): Promise<void> {
  const make = () => mkdir(path, { recursive: true, mode: 0o700 });
  try {
    await make();
  } catch (error) {
    // ENOENT: a link whose target is not there.
    if (!["EEXIST", "ENOTDIR", "ENOENT"].some((code) => hasCode(error, code))) throw error;
    await rename(path, `${path}.${Date.now()}`).catch(() => {
      throw error;
    });
    await make();
  }
}

/**
 * Identifies a directory among all of the machine, and stays the same when the directory is moved.
 * A copy of a directory, with all files in it, has another identity.
 */
export async function identityOfDirectory(path: string): Promise<string> {
  const { dev, ino } = await stat(path, { bigint: true });
  return `${dev}:${ino}`;
}
