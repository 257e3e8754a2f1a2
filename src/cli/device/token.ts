/**
 * Source of a daemon's device token: outside the state directory, if a person stores the token
 * elsewhere.
 */
import { execFile } from "node:child_process";
import { join } from "node:path";
import type { Identity } from "@pinion/client";
import { tokenKind } from "../../values/ids.ts";
import type { Environment } from "../cli.ts";
import { readLine } from "../context.ts";
import { exitCodes, Failure } from "../failures.ts";

/**
 * The name of the systemd credential:
 * `LoadCredential=pinion-device-token:/etc/pinion/device-token`.
 */
const credentialName = "pinion-device-token";
/** Time limit of `token_command` in ms; a keychain may ask a person first. */
const commandMsMax = 60_000;

export type TokenSource = { token: string; from: "credential" | "token_command" | "identity.json" };

/**
 * The device's token from the first available source: a systemd credential, the output of
 * `token_command`, or the identity file. Read once and then kept in memory only.
 */
export async function deviceToken(options: {
  identity: Identity;
  tokenCommand: [string, ...string[]] | undefined;
  env: Environment;
}): Promise<TokenSource> {
  const directory = options.env.CREDENTIALS_DIRECTORY;
  const credential = directory && readLine(join(directory, credentialName));
  if (credential) return checked({ token: credential, from: "credential" });
  if (options.tokenCommand) {
    return checked({ token: await printedBy(options.tokenCommand, options.env), from: "token_command" });
  }
  if (options.identity.token !== "") return { token: options.identity.token, from: "identity.json" };
  throw new Failure(
    exitCodes.conflict,
    "the device's token is not in its identity.json, and nothing else says where it is",
    `set token_command under [device] in device.toml, or have systemd load the credential ${credentialName}`,
  );
}

function checked(found: TokenSource): TokenSource {
  if (tokenKind(found.token) === "dev") return found;
  throw new Failure(
    exitCodes.unauthenticated,
    `what the ${found.from === "credential" ? `credential ${credentialName}` : "token_command"} holds is no device's token (pin_dev_…)`,
    "`pinion device enroll --token-file …` writes one",
  );
}

function printedBy([program, ...args]: [string, ...string[]], env: Environment): Promise<string> {
  return new Promise((done, fail) => {
    execFile(program, args, { env, timeout: commandMsMax, encoding: "utf8" }, (error, out, err) => {
      if (!error) return done(out.split("\n")[0]?.trim() ?? "");
      fail(
        new Failure(
          exitCodes.unauthenticated,
          `token_command failed: ${err.trim().split("\n")[0] || error.message}`,
          `try it: ${[program, ...args].join(" ")}`,
        ),
      );
    });
  });
}
