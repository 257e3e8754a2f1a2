/**
 * A person's servers with their tokens, and the current server: `contexts.json` beside the device's
 * configuration, mode 0600. Found from any directory.
 */
import { readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import type { Environment } from "../cli.ts";
import { writeWhole } from "../data-files.ts";
import { exitCodes, Failure } from "../failures.ts";

const contextSchema = z.object({ url: z.url(), token: z.string().min(1) });
const fileSchema = z.object({ current: z.string(), contexts: z.record(z.string(), contextSchema) });

export type Context = z.infer<typeof contextSchema>;
export type Contexts = z.infer<typeof fileSchema>;

const othersMayRead = 0o077;

export function contextsFile(env: Environment): string {
  const configHome = env.XDG_CONFIG_HOME || join(env.HOME || homedir(), ".config");
  return join(configHome, "pinion", "contexts.json");
}

/**
 * Reads the file; empty without a file. Refuses a file readable by other users, because the file
 * holds tokens.
 */
export function readContexts(env: Environment): Contexts {
  // Without a home directory there are no contexts.
  if (!env.HOME && !env.XDG_CONFIG_HOME) return { current: "", contexts: {} };
  const path = contextsFile(env);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    if (code === "ENOENT" || code === "ENOTDIR") return { current: "", contexts: {} };
    throw new Failure(
      exitCodes.unauthenticated,
      `${path} cannot be read (${code})`,
      "give --url and --token",
    );
  }
  if (process.platform !== "win32" && (statSync(path).mode & othersMayRead) !== 0) {
    throw new Failure(
      exitCodes.conflict,
      `others may read ${path}, where tokens are kept`,
      `mend it: chmod 600 '${path}'`,
    );
  }
  try {
    return fileSchema.parse(JSON.parse(text));
  } catch {
    throw new Failure(
      exitCodes.usage,
      `${path} is not what this command writes`,
      "mend or remove it; `pinion login URL` writes it anew",
    );
  }
}

export function writeContexts(env: Environment, contexts: Contexts): void {
  writeWhole(contextsFile(env), `${JSON.stringify(contexts, null, 2)}\n`, 0o600);
}

/** The context with the given name (an error if missing), or the current context. */
export function chosenContext(env: Environment, named: string | undefined): Context | undefined {
  const { current, contexts } = readContexts(env);
  if (named === undefined) return contexts[current];
  const found = contexts[named];
  if (found) return found;
  const known = Object.keys(contexts).join(", ");
  throw new Failure(
    exitCodes.notFound,
    `there is no context "${named}"`,
    known
      ? `there are ${known}; \`pinion login URL --name ${named}\` makes it`
      : "`pinion login URL` makes one",
  );
}

/** The token of a server; undefined without a sign-in. */
export function contextTokenOf(env: Environment, url: string): string | undefined {
  const { current, contexts } = readContexts(env);
  const own = contexts[current];
  if (own?.url === url) return own.token;
  return Object.values(contexts).find((context) => context.url === url)?.token;
}
