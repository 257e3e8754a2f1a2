/**
 * A person's servers with their tokens, and the current server: `contexts.json` beside the device's
 * configuration, mode 0600. Found from any directory.
 */
import { readFileSync, statSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { codeOf } from "../../errors.ts";
import type { Environment } from "../cli.ts";
import { writeWhole } from "../data-files.ts";
import { exitCodes, Failure } from "../failures.ts";
import { type KeychainName, keychainNames, keychainOf } from "./keychain.ts";

/** A context as stored: the token itself, or the keychain with the token. */
export type KeptContext = { url: string; token: string } | { url: string; keychain: KeychainName };
export type Context = { url: string; token: string; from: string };
export type Contexts = { current: string; contexts: Record<string, KeptContext> };

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
    // Drops a byte order mark, as editors of Windows write it.
    text = new TextDecoder().decode(readFileSync(path));
  } catch (error) {
    const code = codeOf(error);
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
    return contextsOf(JSON.parse(text));
  } catch {
    throw new Failure(
      exitCodes.usage,
      `${path} is not what this command writes`,
      "mend or remove it; `pinion login URL` writes it anew",
    );
  }
}

/**
 * The contexts of a file's content; throws for any other content. Every command reads the file, and
 * a schema would take longer to load than the command works.
 */
function contextsOf(content: unknown): Contexts {
  const { current, contexts } = fieldsOf(content);
  if (typeof current !== "string") throw new TypeError("no current context");
  const kept = Object.entries(fieldsOf(contexts)).map(([name, context]) => [name, keptContextOf(context)]);
  return { current, contexts: Object.fromEntries(kept) };
}

function keptContextOf(content: unknown): KeptContext {
  const { url, token, keychain } = fieldsOf(content);
  if (typeof url !== "string" || !URL.canParse(url)) throw new TypeError("no URL");
  if (typeof token === "string" && token !== "") return { url, token };
  const name = keychainNames.find((known) => known === keychain);
  if (name === undefined) throw new TypeError("neither a token nor a keychain");
  return { url, keychain: name };
}

function fieldsOf(content: unknown): Record<string, unknown> {
  if (typeof content !== "object" || content === null || Array.isArray(content)) {
    throw new TypeError("no object");
  }
  return { ...content };
}

/** The place of a context's token, in words. */
export function keptIn(context: KeptContext): "keychain" | "file" {
  return "keychain" in context ? "keychain" : "file";
}

/** The context with its token, which may come from the keychain. */
function opened(env: Environment, name: string, context: KeptContext): Context {
  const { url } = context;
  if ("token" in context) return { url, token: context.token, from: contextsFile(env) };
  try {
    const token = keychainOf(context.keychain, env)?.lookUp(name);
    if (token !== undefined) return { url, token, from: "the keychain" };
  } catch {
    // Told below.
  }
  throw new Failure(
    exitCodes.unauthenticated,
    `the keychain does not give the token of "${name}"`,
    `open the keychain, or \`pinion login ${url} --name ${name}\` anew`,
  );
}

export function writeContexts(env: Environment, contexts: Contexts): void {
  writeWhole(contextsFile(env), `${JSON.stringify(contexts, null, 2)}\n`, 0o600);
}

/** The context with the given name (an error if missing), or the current context. */
export function chosenContext(env: Environment, named: string | undefined): Context | undefined {
  const chosen = choose(env, named);
  return chosen && opened(env, chosen.name, chosen.context);
}

/** The address of the same context, without a question to the keychain. */
export function contextUrl(env: Environment, named: string | undefined): string | undefined {
  return choose(env, named)?.context.url;
}

function choose(
  env: Environment,
  named: string | undefined,
): { name: string; context: KeptContext } | undefined {
  const { current, contexts } = readContexts(env);
  const name = named ?? current;
  const found = contexts[name];
  if (found) return { name, context: found };
  if (named === undefined) return undefined;
  const known = Object.keys(contexts).join(", ");
  throw new Failure(
    exitCodes.notFound,
    `there is no context "${named}"`,
    known
      ? `there are ${known}; \`pinion login URL --name ${named}\` makes it`
      : "`pinion login URL` makes one",
  );
}

/** The context of a server, by its address; undefined without a sign-in. */
export function contextOfServer(env: Environment, url: string): Context | undefined {
  const { current, contexts } = readContexts(env);
  const fitting = Object.entries(contexts).filter(([, context]) => context.url === url);
  const [name, context] = fitting.find(([name]) => name === current) ?? fitting[0] ?? [];
  return name === undefined || context === undefined ? undefined : opened(env, name, context);
}
