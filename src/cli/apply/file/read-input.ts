/** Files that a command reads as a whole, and standard input under the name "-". */
import { closeSync, openSync, readSync } from "node:fs";
import { exitCodes, Failure } from "../../exit-codes.ts";

/** Maximum size of a file in bytes, above 10 000 platforms with long settings. */
const bytesMax = 64 * 1024 * 1024;
const pieceBytes = 64 * 1024;
/** The pause in ms before a pipe whose writer has written nothing yet is read again. */
const againMs = 20;

/**
 * Reads a file, or standard input for "-". A pipe may be in non-blocking mode, so a slow writer
 * means EAGAIN; readFileSync would fail there. Throws a Failure that names the file.
 */
export function readInput(file: string): Buffer {
  const name = file === "-" ? "standard input" : file;
  try {
    const descriptor = file === "-" ? 0 : openSync(file, "r");
    try {
      return readWhole(descriptor, name);
    } finally {
      if (descriptor !== 0) closeSync(descriptor);
    }
  } catch (error) {
    if (error instanceof Failure) throw error;
    throw new Failure(exitCodes.usage, problemOf(name, error as NodeJS.ErrnoException));
  }
}

export function readInputText(file: string): string {
  return readInput(file).toString("utf8");
}

/** Reads a descriptor to its end. */
export function readWhole(descriptor: number, name: string): Buffer {
  const pieces: Buffer[] = [];
  for (let bytes = 0; bytes <= bytesMax; ) {
    const piece = Buffer.alloc(pieceBytes);
    const read = readPatiently(descriptor, piece);
    if (read === 0) return Buffer.concat(pieces);
    pieces.push(piece.subarray(0, read));
    bytes += read;
  }
  throw new Failure(exitCodes.usage, `${name} is larger than 64 MiB`);
}

function readPatiently(descriptor: number, piece: Buffer): number {
  for (;;) {
    try {
      return readSync(descriptor, piece);
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      // Windows reports the end of a pipe as an error.
      if (code === "EOF") return 0;
      if (code !== "EAGAIN") throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, againMs);
    }
  }
}

function problemOf(name: string, { code, message }: NodeJS.ErrnoException): string {
  if (code === "ENOENT") return `there is no ${name}`;
  if (code === "EISDIR") return `${name} is a directory, and a file is needed`;
  if (code === "EACCES") return `${name} may not be read by this user`;
  return `${name} cannot be read: ${message}`;
}
