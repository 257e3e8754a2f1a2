import { closeSync, mkdirSync, openSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

/** A log that grew beyond this is set aside at the next start; one older is kept. */
const logBytesMax = 10 * 1024 * 1024;

/**
 * What `up` and `serve` leave in the data directory for the other commands: `token` (the bootstrap token, mode 0600)
 * and `url` (where the server of this directory listens).
 */
export function writeToken(data: string, token: string): string {
  const path = join(data, "token");
  writeWhole(path, `${token}\n`, 0o600);
  return path;
}

export function writeUrl(data: string, url: string): void {
  writeWhole(join(data, "url"), `${url}\n`, 0o644);
}

/** Nobody listens there any more. */
export function removeUrl(data: string): void {
  rmSync(join(data, "url"), { force: true });
}

/** Replaces a file at once, so that nobody reads half of it. */
export function writeWhole(path: string, text: string, mode: number): void {
  mkdirSync(dirname(path), { recursive: true });
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, text, { mode, flush: true });
  renameSync(draft, path);
}

/** Sets a large log aside, and tells where new lines will begin. */
export function prepareLog(path: string): number {
  mkdirSync(dirname(path), { recursive: true });
  closeSync(openSync(path, "a", 0o600));
  const { size } = statSync(path);
  if (size <= logBytesMax) return size;
  renameSync(path, `${path}.old`);
  closeSync(openSync(path, "a", 0o600));
  return 0;
}
