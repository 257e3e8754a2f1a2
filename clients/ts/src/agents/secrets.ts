import { execFile } from "node:child_process";
import { homedir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { messageOf } from "../device/errors.ts";
import { readRegularFile } from "../regular-file.ts";

const run = promisify(execFile);
/** Bound on a secret in bytes: keys and tokens are shorter. */
const SECRET_BYTES_MAX = 64 * 1024;
/** A keychain may ask a person for a password, and the person may be away. */
const KEYCHAIN_MS_MAX = 10_000;

/**
 * Reads the values of an executor's `secrets`, by variable: "file:PATH", "credential:NAME"
 * (systemd's, in CREDENTIALS_DIRECTORY), "keychain:SERVICE" or "keychain:SERVICE/ACCOUNT" (macOS's
 * `security`, `secret-tool` elsewhere). Throws with the names of the variable and its source, never
 * with a value.
 */
export async function readSecrets(
  places: Record<string, string>,
  env: NodeJS.ProcessEnv,
): Promise<Record<string, string>> {
  const values = await Promise.all(
    Object.entries(places).map(async ([name, place]) => {
      try {
        return [name, (await readSecret(place, env)).replace(/\r?\n$/, "")];
      } catch (error) {
        throw new Error(`cannot read the secret ${name} from ${place}: ${messageOf(error)}`);
      }
    }),
  );
  return Object.fromEntries(values);
}

async function readSecret(place: string, env: NodeJS.ProcessEnv): Promise<string> {
  const [, kind, rest = ""] = /^([a-z]+):(.*)$/s.exec(place) ?? [];
  switch (kind) {
    case "file":
      return readBounded(rest.startsWith("~/") ? join(homedir(), rest.slice(2)) : rest);
    case "credential": {
      const directory = env.CREDENTIALS_DIRECTORY;
      if (directory === undefined || directory === "") {
        throw new Error(
          "CREDENTIALS_DIRECTORY is not set: the daemon was not started by systemd with LoadCredential=",
        );
      }
      return readBounded(join(directory, basename(rest)));
    }
    case "keychain": {
      const [service = "", account] = rest.split("/", 2);
      const [program, ...args]: [string, ...string[]] =
        process.platform === "darwin"
          ? [
              "security",
              "find-generic-password",
              "-w",
              "-s",
              service,
              ...(account === undefined ? [] : ["-a", account]),
            ]
          : [
              "secret-tool",
              "lookup",
              "service",
              service,
              ...(account === undefined ? [] : ["account", account]),
            ];
      const { stdout } = await run(program, args, { timeout: KEYCHAIN_MS_MAX, maxBuffer: SECRET_BYTES_MAX });
      if (stdout === "") throw new Error("there is no such entry");
      return stdout;
    }
    default:
      throw new Error("it is no place of a secret");
  }
}

/** Reads a whole regular file. Never blocks on a FIFO or a device file. */
async function readBounded(path: string): Promise<string> {
  const found = await readRegularFile(path, { bytesMax: SECRET_BYTES_MAX, isLinkFollowed: true });
  if (found.kind === "read") return found.bytes.toString("utf8");
  throw new Error(found.kind === "absent" ? "there is no such file" : found.problem);
}
