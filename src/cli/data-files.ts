import { randomUUID } from "node:crypto";
import {
  closeSync,
  constants,
  fstatSync,
  mkdirSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { directoryProblem } from "@pinion/client";
import { exitCodes, Failure } from "./failures.ts";

/**
 * Maximum size of a log in bytes; a larger log is renamed at the next start, and one renamed log is
 * kept.
 */
const logBytesMax = 10 * 1024 * 1024;

/**
 * Creates the data directory; refuses a directory in which another user may write, with the command
 * for the correction.
 */
export function requirePrivateDirectory(data: string): void {
  // PostgreSQL refuses to run as root; its substitute user needs access through this directory.
  mkdirSync(data, { recursive: true, mode: process.getuid?.() === 0 ? 0o711 : 0o700 });
  const problem = directoryProblem(data);
  if (!problem) return;
  throw new Failure(
    exitCodes.conflict,
    `${problem.found}; the owner's token and keys are kept there`,
    problem.advice,
  );
}

/**
 * Files of `up` and `serve` in the data directory for other commands: `token` (the bootstrap token,
 * mode 0600) and `url` (the address of the directory's server).
 */
export function writeToken(data: string, token: string): string {
  const path = join(data, "token");
  writeWhole(path, `${token}\n`, 0o600);
  return path;
}

export function writeUrl(data: string, url: string): void {
  writeWhole(join(data, "url"), `${url}\n`, 0o644);
}

/** Removes the address of a stopped server. */
export function removeUrl(data: string): void {
  rmSync(join(data, "url"), { force: true });
}

/** Replaces a file atomically, so readers never see a partial file. */
export function writeWhole(path: string, text: string, mode: number): void {
  mkdirSync(dirname(path), { recursive: true });
  const draft = `${path}.${randomUUID()}`;
  writeFileSync(draft, text, { mode, flush: true, flag: "wx" });
  renameSync(draft, path);
}

const logFlags =
  constants.O_WRONLY |
  constants.O_APPEND |
  constants.O_CREAT |
  // Windows has neither flag.
  (constants.O_NONBLOCK ?? 0) |
  (constants.O_NOFOLLOW ?? 0);

/**
 * Opens a log for appending, and returns its descriptor. A program of the device may have put
 * something else at the path, such as a FIFO, which would hold the caller up; it makes way.
 */
export function openLog(path: string): number {
  let log: number | undefined;
  try {
    log = openSync(path, logFlags, 0o600);
    if (fstatSync(log).isFile()) return log;
  } catch {
    // A FIFO without a reader, a socket, a link, or a directory.
  }
  if (log !== undefined) closeSync(log);
  rmSync(path, { recursive: true, force: true });
  return openSync(path, logFlags | constants.O_EXCL, 0o600);
}

/** Renames a large log, and returns the byte offset of new lines. */
export function prepareLog(path: string): number {
  mkdirSync(dirname(path), { recursive: true });
  closeSync(openLog(path));
  const { size } = statSync(path);
  if (size <= logBytesMax) return size;
  renameSync(path, `${path}.old`);
  closeSync(openLog(path));
  return 0;
}
