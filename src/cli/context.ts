import { existsSync, readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { type Clients, createClients, type ProxySetting } from "@pinion/client";
import type { Command } from "commander";
import { codeOf } from "../errors.ts";
import type { Cli, Environment } from "./cli.ts";
import { type Context, chosenContext, contextOfServer, contextUrl } from "./contexts/file.ts";
import { exitCodes, Failure } from "./failures.ts";

/** Options of every command. */
export type GlobalOptions = {
  url?: string;
  token?: string;
  proxy?: string;
  data?: string;
  context?: string;
  json?: boolean;
  wide?: boolean;
};

export const defaultPort = 7420;
const defaultDataDir = ".pinion";

/** The options of a command and of all its parents. */
export function optionsOf<Options extends object>(command: Command): Options & GlobalOptions {
  return command.optsWithGlobals() as Options & GlobalOptions;
}

/** State directory of `pinion up` and `pinion serve`. */
export function dataDir(options: GlobalOptions, env: Environment): string {
  return options.data ?? env.PINION_DATA ?? defaultDataDir;
}

/** A context named by an option or variable applies in any directory. */
function namedIn(options: GlobalOptions, env: Environment): string | undefined {
  return options.context ?? (env.PINION_CONTEXT || undefined);
}

function namedContext(options: GlobalOptions, env: Environment): Context | undefined {
  const named = namedIn(options, env);
  return named === undefined ? undefined : chosenContext(env, named);
}

function namedUrl(options: GlobalOptions, env: Environment): string | undefined {
  const named = namedIn(options, env);
  return named === undefined ? undefined : contextUrl(env, named);
}

/** The current context counts unless the directory has its own Pinion data. */
function countsCurrent(options: GlobalOptions, env: Environment): boolean {
  const data = dataDir(options, env);
  return !(options.data !== undefined || existsSync(join(data, "url")) || existsSync(join(data, "token")));
}

function currentContext(options: GlobalOptions, env: Environment): Context | undefined {
  return countsCurrent(options, env) ? chosenContext(env, undefined) : undefined;
}

function currentUrl(options: GlobalOptions, env: Environment): string | undefined {
  return countsCurrent(options, env) ? contextUrl(env, undefined) : undefined;
}

/**
 * The server's URL: --url, PINION_URL, the context of --context or PINION_CONTEXT, the URL written
 * by `pinion up` to the data directory, the current context, or port 7420 of this machine. Without
 * a trailing slash.
 */
export function serverUrl(options: GlobalOptions, env: Environment): string {
  const given = options.url ?? (env.PINION_URL || undefined);
  const text =
    given ??
    namedUrl(options, env) ??
    readLine(join(dataDir(options, env), "url")) ??
    currentUrl(options, env) ??
    `http://localhost:${defaultPort}`;
  let url: URL;
  try {
    url = new URL(text.includes("://") ? text : `http://${text}`);
  } catch {
    throw new Failure(
      exitCodes.usage,
      `"${text}" is no URL`,
      "write it like http://localhost:7420, or http://[::1]:7420 with an IPv6 address",
    );
  }
  if (url.protocol !== "http:" && url.protocol !== "https:") {
    throw new Failure(
      exitCodes.usage,
      `"${text}" is neither http nor https`,
      "write it like http://localhost:7420",
    );
  }
  // An address copied from the browser names a view of the page behind the "#".
  url.hash = "";
  url.search = "";
  return url.href.replace(/\/+$/, "");
}

/** The client's option for --proxy; empty if the environment decides. */
export function proxyOption(options: GlobalOptions): { proxy?: ProxySetting } {
  return options.proxy === undefined ? {} : { proxy: { url: options.proxy, setting: "--proxy" } };
}

export type FoundToken = { token: string; from: string };

/**
 * The first token of: --token, PINION_TOKEN, the context of the server, <data>/token,
 * ~/.config/pinion/token. A context's token goes only to its own server.
 */
export function findToken(options: GlobalOptions, env: Environment): FoundToken | undefined {
  if (options.token) return { token: options.token, from: "--token" };
  if (env.PINION_TOKEN) return { token: env.PINION_TOKEN, from: "PINION_TOKEN" };
  const isGiven = options.url !== undefined || Boolean(env.PINION_URL);
  const context = isGiven ? undefined : (namedContext(options, env) ?? currentContext(options, env));
  if (context) return { token: context.token, from: context.from };
  if (isGiven && readLine(join(dataDir(options, env), "token")) === undefined) {
    const found = contextOfServer(env, serverUrl(options, env));
    if (found !== undefined) return { token: found.token, from: found.from };
  }
  for (const path of tokenFiles(options, env)) {
    const token = readLine(path);
    if (token) return { token, from: path };
  }
  return undefined;
}

export function tokenFiles(options: GlobalOptions, env: Environment): string[] {
  const configHome = env.XDG_CONFIG_HOME || join(env.HOME || homedir(), ".config");
  return [join(dataDir(options, env), "token"), join(configHome, "pinion", "token")];
}

/** The first line of a file; undefined for a missing or empty file. */
export function readLine(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").split("\n")[0]?.trim() || undefined;
  } catch (error) {
    const code = codeOf(error);
    if (code === "ENOENT" || code === "ENOTDIR") return undefined;
    if (code === "EISDIR") {
      throw new Failure(exitCodes.usage, `${path} is a directory, and a file with a token is needed`);
    }
    if (code === "EACCES") {
      throw new Failure(
        exitCodes.unauthenticated,
        `${path} may not be read by this user`,
        "give --token, or use that user",
      );
    }
    throw error;
  }
}

/** Refuses a token that no header can carry, such as one with a line break in the middle. */
export function requireTokenForm({ token, from }: FoundToken): void {
  if (/^[\x21-\x7e]{1,4096}$/.test(token)) return;
  throw new Failure(
    exitCodes.unauthenticated,
    `the token of ${from} is no token: it is too long, or has spaces, line breaks or letters beyond ASCII`,
    "a token is one word, pin_…; copy it again",
  );
}

export type { Clients };

export type Connection<Options extends object> = {
  options: Options & GlobalOptions;
  url: string;
  clients: Clients;
};

/**
 * Typed clients for the server from the options and the environment. Created without a token too:
 * the server decides whether a token is required, and an unreachable server is the more useful
 * error.
 */
export function connect<Options extends object>(cli: Cli, command: Command): Connection<Options> {
  const options = optionsOf<Options>(command);
  const url = serverUrl(options, cli.env);
  const found = findToken(options, cli.env);
  if (found) requireTokenForm(found);
  const clients = createClients({
    url,
    ...proxyOption(options),
    ...(found ? { token: found.token } : {}),
  });
  cli.open.defer(() => clients.close());
  return { options, url, clients };
}
