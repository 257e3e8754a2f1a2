import { closeSync, mkdirSync, openSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
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
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, text, { mode, flush: true });
  renameSync(draft, path);
}

/** Renames a large log, and returns the byte offset of new lines. */
export function prepareLog(path: string): number {
  mkdirSync(dirname(path), { recursive: true });
  closeSync(openSync(path, "a", 0o600));
  const { size } = statSync(path);
  if (size <= logBytesMax) return size;
  renameSync(path, `${path}.old`);
  closeSync(openSync(path, "a", 0o600));
  return 0;
}
