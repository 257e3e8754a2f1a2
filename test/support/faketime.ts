import { existsSync, readdirSync } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";

/**
 * libfaketime, the library that gives a process a wrong clock; undefined if it is not installed.
 * Debian and Ubuntu: `apt-get install libfaketime`.
 */
export function findFaketime(): string | undefined {
  const multiarch = existsSync("/usr/lib")
    ? readdirSync("/usr/lib").filter((name) => name.endsWith("-linux-gnu"))
    : [];
  return [...multiarch.map((name) => join("/usr/lib", name)), "/usr/lib", "/usr/lib64", "/usr/local/lib"]
    .map((directory) => join(directory, "faketime", "libfaketime.so.1"))
    .find((file) => existsSync(file));
}

/**
 * This run has a clock of its own (test/odd.ts): PostgreSQL's time limits (`statement_timeout`,
 * `lock_timeout`) do not end statements under libfaketime.
 */
export const isClockFaked = process.env.FAKETIME !== undefined;

/**
 * The environment of a process whose wall clock follows a file, at every look at the clock. The
 * monotonic clock stays right.
 */
export function faketimeEnvironment(library: string, clockFile: string): Record<string, string> {
  return {
    LD_PRELOAD: library,
    FAKETIME_TIMESTAMP_FILE: clockFile,
    FAKETIME_NO_CACHE: "1",
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
    DONT_FAKE_MONOTONIC: "1",
  };
}

/** Sets the clock of the processes that follow the file; 0: the right time. */
export async function setFaketime(clockFile: string, aheadMs: number): Promise<void> {
  const draft = `${clockFile}.new`;
  await writeFile(draft, `${aheadMs < 0 ? "-" : "+"}${Math.abs(Math.round(aheadMs / 1_000))}\n`, {
    mode: 0o644,
  });
  // Whole at once: a process reads the file at any moment.
  await rename(draft, clockFile);
}
