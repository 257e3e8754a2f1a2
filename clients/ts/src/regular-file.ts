import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from "node:fs";
import { open } from "node:fs/promises";
import { hasCode, messageOf } from "./device/errors.ts";

/** Result of reading a file at a path writable by programs. */
export type FileReading =
  | { kind: "read"; bytes: Buffer }
  | { kind: "absent" }
  /** The file can never be used. */
  | { kind: "unfit"; problem: string }
  /** The system refuses the read for now; the content is unknown. */
  | { kind: "unreadable"; problem: string; isLink?: boolean };

export interface ReadOptions {
  bytesMax: number;
  /** True: follows a symbolic link, for paths chosen by a person. */
  isLinkFollowed?: boolean;
}

/**
 * Without O_NONBLOCK the open of a FIFO waits for a writer, and four such opens block all of Node's
 * file threads.
 */
const flagsOf = ({ isLinkFollowed }: ReadOptions) =>
  constants.O_RDONLY |
  // Windows has neither flag.
  (constants.O_NONBLOCK ?? 0) |
  (isLinkFollowed === true ? 0 : (constants.O_NOFOLLOW ?? 0));

/**
 * Reads a whole regular file of at most `bytesMax` bytes, waiting only for the disk. Never rejects.
 */
export async function readRegularFile(path: string, options: ReadOptions): Promise<FileReading> {
  let file: Awaited<ReturnType<typeof open>>;
  try {
    file = await open(path, flagsOf(options));
  } catch (error) {
    return unopened(error);
  }
  try {
    const problem = problemOf(await file.stat());
    if (problem !== undefined) return { kind: "unfit", problem };
    // Reads up to one byte beyond the bound, which detects a larger file even if the file grows.
    const parts: Buffer[] = [];
    let length = 0;
    while (length <= options.bytesMax) {
      const part = Buffer.alloc(Math.min(PIECE_BYTES, options.bytesMax + 1 - length));
      const { bytesRead } = await file.read(part, 0, part.length);
      if (bytesRead === 0) break;
      parts.push(part.subarray(0, bytesRead));
      length += bytesRead;
    }
    return readingOf(parts, length, options);
  } catch (error) {
    return { kind: "unreadable", problem: messageOf(error) };
  } finally {
    await file.close().catch(() => {});
  }
}

/** The synchronous form, for small and rarely read files. */
export function readRegularFileSync(path: string, options: ReadOptions): FileReading {
  let descriptor: number;
  try {
    descriptor = openSync(path, flagsOf(options));
  } catch (error) {
    return unopened(error);
  }
  try {
    const problem = problemOf(fstatSync(descriptor));
    if (problem !== undefined) return { kind: "unfit", problem };
    const parts: Buffer[] = [];
    let length = 0;
    while (length <= options.bytesMax) {
      const part = Buffer.alloc(Math.min(PIECE_BYTES, options.bytesMax + 1 - length));
      const bytesRead = readSync(descriptor, part);
      if (bytesRead === 0) break;
      parts.push(part.subarray(0, bytesRead));
      length += bytesRead;
    }
    return readingOf(parts, length, options);
  } catch (error) {
    return { kind: "unreadable", problem: messageOf(error) };
  } finally {
    closeSync(descriptor);
  }
}

/** Size of a read in bytes, so a small file needs little memory. */
const PIECE_BYTES = 64 * 1024;

function readingOf(parts: Buffer[], length: number, { bytesMax }: ReadOptions): FileReading {
  if (length > bytesMax) return { kind: "unfit", problem: `it is larger than ${sizeOf(bytesMax)}` };
  return { kind: "read", bytes: Buffer.concat(parts) };
}

const sizeOf = (bytes: number) => (bytes % 1048576 === 0 ? `${bytes / 1048576} MiB` : `${bytes} bytes`);

function unopened(error: unknown): FileReading {
  if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) return { kind: "absent" };
  // The link's target is unknown and may be a result of ours, so the file is not judged.
  if (hasCode(error, "ELOOP")) {
    return { kind: "unreadable", problem: "it is a symbolic link (ELOOP)", isLink: true };
  }
  if (hasCode(error, "ENXIO")) return { kind: "unfit", problem: "it is a socket, not a file" };
  return { kind: "unreadable", problem: messageOf(error) };
}

function problemOf(stats: Stats): string | undefined {
  if (stats.isFile()) return undefined;
  const kind = stats.isDirectory()
    ? "a directory"
    : stats.isFIFO()
      ? "a FIFO"
      : stats.isCharacterDevice() || stats.isBlockDevice()
        ? "a device"
        : "something else";
  return `it is ${kind}, not a file`;
}
