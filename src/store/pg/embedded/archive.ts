/**
 * A folder as a single compressed file, the form of PostgreSQL's binaries in the one-file command:
 * a line of JSON with the list of files, and their bytes in the same order, both compressed with
 * zstd.
 */
import { chmod, mkdir, readdir, readFile, readlink, stat, symlink, writeFile } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";

type Entry = { path: string } & ({ mode: number; bytes: number } | { link: string });

/** Dear to make, and made once a build. */
const compressionLevel = 15;

export async function packFolder(folder: string): Promise<Buffer> {
  const found = await readdir(folder, { recursive: true, withFileTypes: true });
  const entries: Entry[] = [];
  const contents: Buffer[] = [];
  for (const entry of found) {
    const file = join(entry.parentPath, entry.name);
    const path = relative(folder, file);
    if (entry.isSymbolicLink()) entries.push({ path, link: await readlink(file) });
    else if (entry.isFile()) {
      const content = await readFile(file);
      entries.push({ path, mode: (await stat(file)).mode & 0o777, bytes: content.length });
      contents.push(content);
    }
  }
  const whole = Buffer.concat([Buffer.from(`${JSON.stringify(entries)}\n`), ...contents]);
  return zstdCompressSync(whole, { params: { [constants.ZSTD_c_compressionLevel]: compressionLevel } });
}

/** Unpacks the result of `packFolder` into a folder, which is created. */
export async function unpackFolder(packed: Uint8Array, folder: string): Promise<void> {
  const whole = zstdDecompressSync(packed);
  const end = whole.indexOf(0x0a);
  const entries = JSON.parse(whole.subarray(0, end).toString("utf8")) as Entry[];
  let at = end + 1;
  for (const entry of entries) {
    const file = join(folder, entry.path);
    await mkdir(dirname(file), { recursive: true });
    if ("link" in entry) {
      await symlink(entry.link, file);
      continue;
    }
    await writeFile(file, whole.subarray(at, at + entry.bytes), { flag: "wx" });
    // Independent of the umask.
    await chmod(file, entry.mode);
    at += entry.bytes;
  }
}
