import { closeSync, constants, fstatSync, openSync, readSync, type Stats } from "node:fs";
import { open } from "node:fs/promises";
import { hasCode, messageOf } from "./device/errors.ts";

/** What became of reading a file that a program could have put there. */
export type FileReading =
  | { kind: "read"; bytes: Buffer }
  | { kind: "absent" }
  /** It is no file that can be used, now or ever. */
  | { kind: "unfit"; problem: string }
  /** The system does not let us read it now; that says nothing about its content. */
  | { kind: "unreadable"; problem: string };

export interface ReadOptions {
  bytesMax: number;
  /** A link is followed: the file's place is a person's choice. */
  isLinkFollowed?: boolean;
}

/** Without O_NONBLOCK the open of a FIFO waits for a writer, and four of them are all threads that Node has for files. */
const flagsOf = ({ isLinkFollowed }: ReadOptions) =>
  constants.O_RDONLY |
  // Windows knows neither.
  (constants.O_NONBLOCK ?? 0) |
  (isLinkFollowed === true ? 0 : (constants.O_NOFOLLOW ?? 0));

/** Reads a whole regular file of at most `bytesMax`, and never waits for anything but the disk. Never rejects. */
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
    // One byte more than is allowed tells that there is more, whatever the file's size was a moment ago.
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

/** The same at once, for what is small and read rarely. */
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

/** What one read asks for, so that a small file costs little. */
const PIECE_BYTES = 64 * 1024;

function readingOf(parts: Buffer[], length: number, { bytesMax }: ReadOptions): FileReading {
  if (length > bytesMax) return { kind: "unfit", problem: `it is larger than ${sizeOf(bytesMax)}` };
  return { kind: "read", bytes: Buffer.concat(parts) };
}

const sizeOf = (bytes: number) => (bytes % 1048576 === 0 ? `${bytes / 1048576} MiB` : `${bytes} bytes`);

function unopened(error: unknown): FileReading {
  if (hasCode(error, "ENOENT") || hasCode(error, "ENOTDIR")) return { kind: "absent" };
  // What the link leads to may be anything, a result of ours too: it is not judged.
  if (hasCode(error, "ELOOP")) return { kind: "unreadable", problem: "it is a symbolic link (ELOOP)" };
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
