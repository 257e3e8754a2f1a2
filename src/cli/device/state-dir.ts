import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import type { Environment } from "../cli.ts";

export { daemonPid } from "@pinion/client";

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
