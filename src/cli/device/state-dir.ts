import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { readRegularFile } from "@pinion/client";
import type { Environment } from "../cli.ts";

/**
 * Directory of this user's daemon for identity and outbox: PINION_STATE_DIR, or by the XDG rules.
 */
export function ownStateDir(env: Environment): string {
  const stateHome = env.XDG_STATE_HOME || join(env.HOME || homedir(), ".local", "state");
  return env.PINION_STATE_DIR || join(stateHome, "pinion", "device");
}

/**
 * Directory of this user's fleet worker for its installation id and outbox: separate from a
 * device's.
 */
export function ownWorkerStateDir(env: Environment): string {
  const stateHome = env.XDG_STATE_HOME || join(env.HOME || homedir(), ".local", "state");
  return env.PINION_STATE_DIR || join(stateHome, "pinion", "worker");
}

/** State directory of the device of `pinion up`. */
export function upStateDir(data: string): string {
  return join(data, "device");
}

/**
 * State directory of this machine's device: the given directory, the directory of `up` if present,
 * or the user's own.
 */
export function stateDirOf(given: string | undefined, env: Environment, data: string): string {
  if (given) return given;
  return existsSync(upStateDir(data)) ? upStateDir(data) : ownStateDir(env);
}

/** Configuration file of the device of `pinion up`. */
export function upConfigFile(data: string): string {
  return join(data, "device.toml");
}

/** Configuration file of this machine's device; see stateDirOf. */
export function configFileOf(stateDir: string | undefined, env: Environment, data: string): string {
  return stateDirOf(stateDir, env, data) === upStateDir(data) ? upConfigFile(data) : ownConfigFile(env);
}

/** Default path of the daemon's configuration, by the XDG rules. */
export function ownConfigFile(env: Environment): string {
  const configHome = env.XDG_CONFIG_HOME || join(env.HOME || homedir(), ".config");
  return join(configHome, "pinion", "device.toml");
}

const lockBytesMax = 4_096;

/** Process id of the living holder of the state directory's lock. */
export async function daemonPid(stateDir: string): Promise<number | undefined> {
  const found = await readRegularFile(join(stateDir, "daemon.lock"), { bytesMax: lockBytesMax });
  if (found.kind !== "read") return undefined;
  try {
    const { pid } = JSON.parse(found.bytes.toString("utf8")) as { pid: number };
    process.kill(pid, 0);
    return pid;
  } catch {
    // A partial lock, an ended process, or a reused id of another user's process.
    return undefined;
  }
}
