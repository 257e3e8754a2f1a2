/**
 * Tokens of contexts in the keychain of the operating system: the Secret Service (`secret-tool`, of
 * libsecret) or the keychain of macOS (`security`). Tokens are handed over on standard input, never
 * as arguments, which other users may read.
 */
import { execFileSync } from "node:child_process";
import type { Environment } from "../cli.ts";
import { findProgram } from "../device/find-program.ts";

export const keychainNames = ["secret-service", "macos"] as const;
export type KeychainName = (typeof keychainNames)[number];

export type Keychain = {
  name: KeychainName;
  /** Stores the token; throws if the keychain does not give back the same token. */
  store(context: string, token: string): void;
  /** Throws without such a token, and with a locked keychain that nobody opens. */
  lookUp(context: string): string;
  forget(context: string): void;
};

/** The keychain may first ask a person for its password. */
const askMsMax = 60_000;
const service = "dev.pinion.cli";

/** The keychain of this session; undefined: none. */
export function findKeychain(env: Environment): Keychain | undefined {
  if (process.platform === "darwin") return keychainOf("macos", env);
  // Without a session bus nothing answers.
  return env.DBUS_SESSION_BUS_ADDRESS ? keychainOf("secret-service", env) : undefined;
}

/** The keychain in which a token was stored; undefined if its command is not here any more. */
export function keychainOf(name: KeychainName, env: Environment): Keychain | undefined {
  const path = findProgram(name === "macos" ? "security" : "secret-tool", env);
  if (path === undefined) return undefined;
  const run = (args: string[], input = "") =>
    execFileSync(path, args, {
      env,
      input,
      encoding: "utf8",
      timeout: askMsMax,
      stdio: ["pipe", "pipe", "pipe"],
    }).trim();
  const keychain = name === "macos" ? macos(run) : secretService(run);
  return {
    name,
    ...keychain,
    store(context, token) {
      keychain.store(context, token);
      if (keychain.lookUp(context) !== token) throw new Error("the keychain gives another token back");
    },
  };
}

type Run = (args: string[], input?: string) => string;
type Commands = Omit<Keychain, "name">;

function secretService(run: Run): Commands {
  const attributes = (context: string) => ["service", service, "context", context];
  return {
    store: (context, token) =>
      void run(["store", `--label=Pinion: ${context}`, ...attributes(context)], token),
    lookUp: (context) => found(run(["lookup", ...attributes(context)])),
    forget: (context) => void run(["clear", ...attributes(context)]),
  };
}

function macos(run: Run): Commands {
  const names = (context: string) => ["-s", service, "-a", context];
  const quoted = (text: string) => `"${text.replace(/["\\]/g, "\\$&")}"`;
  return {
    // `security -i` reads commands from standard input.
    store: (context, token) =>
      void run(
        ["-i"],
        `add-generic-password -U -s ${service} -a ${quoted(context)} -l ${quoted(`Pinion: ${context}`)} -w ${quoted(token)}\n`,
      ),
    lookUp: (context) => found(run(["find-generic-password", ...names(context), "-w"])),
    forget: (context) => void run(["delete-generic-password", ...names(context)]),
  };
}

function found(token: string): string {
  if (token !== "") return token;
  throw new Error("there is no such entry");
}
