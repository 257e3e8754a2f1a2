/** Files below a folder: their sizes, their number, and what differs from another folder. */
import { lstat, readdir, stat } from "node:fs/promises";
import { join } from "node:path";

const ENTRIES_WALKED_MAX = 2_000_000;

export const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  );

/** Every regular file below a folder; symbolic links are not followed. */
async function* files(directory: string): AsyncGenerator<{ path: string; bytes: number; mtimeMs: number }> {
  const waiting = [directory];
  let walked = 0;
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    for (const entry of await readdir(next, { withFileTypes: true }).catch(() => [])) {
      walked += 1;
      if (walked > ENTRIES_WALKED_MAX) return;
      const path = join(next, entry.name);
      if (entry.isDirectory()) waiting.push(path);
      else if (entry.isFile()) {
        const info = await lstat(path).catch(() => undefined);
        if (info !== undefined) yield { path, bytes: info.size, mtimeMs: info.mtimeMs };
      }
    }
  }
}

export async function bytesOf(directory: string): Promise<number> {
  let bytes = 0;
  for await (const file of files(directory)) bytes += file.bytes;
  return bytes;
}

export async function countFiles(directory: string): Promise<number> {
  let count = 0;
  for await (const _ of files(directory)) count += 1;
  return count;
}

/**
 * Counts files of a copy with another size or time than the original, and files removed from the
 * copy.
 */
export async function countChanges(original: string, copy: string): Promise<number> {
  let changed = 0;
  for await (const file of files(copy)) {
    const before = await lstat(join(original, file.path.slice(copy.length))).catch(() => undefined);
    // Times of a copy may lose fractions of a millisecond.
    const isSame =
      before?.isFile() && before.size === file.bytes && Math.abs(before.mtimeMs - file.mtimeMs) < 2;
    if (!isSame) changed += 1;
  }
  for await (const file of files(original)) {
    if (!(await exists(join(copy, file.path.slice(original.length))))) changed += 1;
  }
  return changed;
}
