import { mkdirSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

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

/** Replaces a file at once, so that nobody reads half of it. */
export function writeWhole(path: string, text: string, mode: number): void {
  mkdirSync(dirname(path), { recursive: true });
  const draft = `${path}.${process.pid}`;
  writeFileSync(draft, text, { mode, flush: true });
  renameSync(draft, path);
}
