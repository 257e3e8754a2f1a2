/** The built command as a user runs it, in a home directory of its own. */
import { type ChildProcess, execFile } from "node:child_process";
import { mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inject } from "vitest";

export type Ended = { code: number; out: string; err: string };

/** A hanging command fails its test with the output so far. */
const commandTimeoutMs = 60_000;

/**
 * A home directory, which the caller removes; a server there listens at a port that the system
 * chooses. `run` runs `pinion` to its end.
 *
 * As root, PostgreSQL's own user must be able to traverse the directory; the system's directory for
 * temporary files permits this.
 */
export function temporaryHome() {
  const home = mkdtempSync(join(tmpdir(), "pinion-e2e-"));
  const env = { PATH: process.env.PATH, HOME: home, XDG_CONFIG_HOME: join(home, "config"), PINION_PORT: "0" };
  const run = (more: Record<string, string>, ...args: string[]): Promise<Ended> => {
    const options = { env: { ...env, ...more }, cwd: home, timeout: commandTimeoutMs };
    return new Promise((done) => {
      execFile(process.execPath, [inject("pinionMain"), ...args], options, (error, out, err) => {
        done({ code: error ? Number(error.code ?? Number.NaN) : 0, out, err });
      });
    });
  };
  return { home, env, run };
}

/** Resolves with the output since the call, once the output matches. */
export async function untilPrinted(process: ChildProcess, pattern: RegExp): Promise<string> {
  let printed = "";
  const found = Promise.withResolvers<void>();
  for (const stream of [process.stdout!, process.stderr!]) {
    stream.on("data", (chunk) => {
      printed += chunk;
      if (pattern.test(printed)) found.resolve();
    });
  }
  process.once("exit", (code) =>
    found.reject(new Error(`it ended with ${code}, having printed:\n${printed}`)),
  );
  await found.promise;
  return printed;
}
