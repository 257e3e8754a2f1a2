import { randomUUID } from "node:crypto";
import { constants } from "node:fs";
import { open, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { hasCode } from "../device/errors.ts";

/**
 * Suffix of files being written; a file with the suffix at the start is incomplete and is removed.
 */
export const TEMPORARY_SUFFIX = ".tmp";

/**
 * Writes a file durably and atomically: temporary file, fsync, rename, fsync of the directory.
 * Before the promise resolves, the path has either the old or the new content; afterwards the new
 * content survives a power cut.
 */
export async function writeDurably(
  path: string,
  content: Uint8Array | string,
  options: { mode?: number } = {},
): Promise<void> {
  const temporary = `${path}.${randomUUID()}${TEMPORARY_SUFFIX}`;
  try {
    const file = await open(temporary, "wx", options.mode ?? 0o600);
    try {
      await file.writeFile(content);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  await syncDirectory(dirname(path));
}

/**
 * Makes renames and removals in a directory durable. Windows cannot open directories and needs no
 * such call.
 */
async function syncDirectory(path: string): Promise<void> {
  try {
    // A program may have put a FIFO in the place of the directory.
    const directory = await open(path, constants.O_RDONLY | (constants.O_DIRECTORY ?? 0));
    try {
      await directory.sync();
    } finally {
      await directory.close();
    }
  } catch (error) {
    if (!hasCode(error, "EISDIR") && !hasCode(error, "EPERM") && !hasCode(error, "EACCES")) throw error;
  }
}
