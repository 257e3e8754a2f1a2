import { randomUUID } from "node:crypto";
import { chmod, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { hasCode } from "./device/errors.ts";

/**
 * Bound on a directory's path in bytes before it is moved up: with a name of 255 bytes below it,
 * the path stays far below the 1,024 bytes of macOS and the 4,096 of Linux.
 */
const PATH_BYTES_MAX = 600;
/** What stops the removal of a tree that its user may remove. */
const STOPS = ["ENAMETOOLONG", "EACCES", "EPERM", "ENOTEMPTY"];

/**
 * Removes a file or a directory with all its content, as a program may have left it: with paths
 * longer than the system takes, or with directories that nobody may enter. Rejects if the system
 * refuses the removal nevertheless. Nothing at the path is no error.
 */
export async function removeTree(path: string): Promise<void> {
  const remove = () => rm(path, { recursive: true, force: true });
  try {
    await remove();
  } catch (error) {
    if (!STOPS.some((code) => hasCode(error, code))) throw error;
    await makeRemovable(path);
    await remove();
  }
}

/**
 * Opens every directory to its user, and moves directories with long paths to the top of the tree.
 * Symbolic links are not followed.
 */
async function makeRemovable(root: string): Promise<void> {
  const waiting = [root];
  for (let directory = waiting.pop(); directory !== undefined; directory = waiting.pop()) {
    await chmod(directory, 0o700).catch(() => {});
    // A directory that cannot be read is left to the removal, which then gives the reason.
    for (const entry of await readdir(directory, { withFileTypes: true }).catch(() => [])) {
      if (!entry.isDirectory()) continue;
      const path = join(directory, entry.name);
      const isLong = Buffer.byteLength(path) > PATH_BYTES_MAX && directory !== root;
      waiting.push(isLong ? await moved(path, join(root, randomUUID())) : path);
    }
  }
}

async function moved(from: string, to: string): Promise<string> {
  // A directory is moved only if its user may write in it: its ".." changes.
  await chmod(from, 0o700).catch(() => {});
  return rename(from, to).then(
    () => to,
    () => from,
  );
}
