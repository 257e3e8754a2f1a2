/** Deliberately broken daemons: the client's sources with one line changed. */
import { cpSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";

const root = resolve(import.meta.dirname, "../..");

export type Mutation = { file: string; from: string; to: string };

/**
 * Copies the client into a directory, with a mutation, beside a daemon that runs `sh`; returns the
 * command that starts the daemon. The daemon's waits are short for tests, apart from the backoff.
 */
export function mutantDaemon(directory: string, { file, from, to }: Mutation): string[] {
  cpSync(join(root, "clients/ts/src"), join(directory, "src"), { recursive: true });
  cpSync(join(root, "clients/ts/package.json"), join(directory, "package.json"));
  symlinkSync(join(root, "node_modules"), join(directory, "node_modules"));
  const path = join(directory, "src", file);
  const text = readFileSync(path, "utf8");
  if (text.split(from).length !== 2) throw new Error(`${file} does not have exactly one "${from}"`);
  writeFileSync(
    path,
    text.replace(from, () => to),
  );
  const main = join(directory, "daemon.ts");
  writeFileSync(main, daemon);
  return [process.execPath, main];
}

const daemon = `
import { findIdentity, parseConfig, runDaemon } from "./src/index.ts";

const stateDir = process.env.PINION_STATE_DIR!;
const identity = (await findIdentity(stateDir))!;
await runDaemon({
  url: identity.url,
  token: identity.token,
  stateDir,
  config: parseConfig('[device]\\nmax_concurrency = 2\\n[executors.sh]\\ncommand = ["sh"]\\nkill_grace = "3s"\\n'),
  signal: new AbortController().signal,
});
`;
