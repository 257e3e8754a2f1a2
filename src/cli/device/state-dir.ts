import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { homedir } from "node:os";
import { join } from "node:path";
import type { Environment } from "../cli.ts";

/** Where a daemon of this user keeps its identity and its outbox: PINION_STATE_DIR, or by the XDG rules. */
export function ownStateDir(env: Environment): string {
  const stateHome = env.XDG_STATE_HOME || join(env.HOME || homedir(), ".local", "state");
  return env.PINION_STATE_DIR || join(stateHome, "pinion", "device");
}

/** Where a fleet worker of this user keeps its installation's id and its outbox: apart from a device's. */
export function ownWorkerStateDir(env: Environment): string {
  const stateHome = env.XDG_STATE_HOME || join(env.HOME || homedir(), ".local", "state");
  return env.PINION_STATE_DIR || join(stateHome, "pinion", "worker");
}

/** The state of the device that `pinion up` runs. */
export function upStateDir(data: string): string {
  return join(data, "device");
}

/** The device that is meant on this machine: the given one, that of `up` if there is one, else the user's own daemon. */
export function stateDirOf(given: string | undefined, env: Environment, data: string): string {
  if (given) return given;
  return existsSync(upStateDir(data)) ? upStateDir(data) : ownStateDir(env);
}

/** The configuration of the device that `pinion up` runs. */
export function upConfigFile(data: string): string {
  return join(data, "device.toml");
}

/** The configuration of the device that is meant on this machine; see stateDirOf. */
export function configFileOf(stateDir: string | undefined, env: Environment, data: string): string {
  return stateDirOf(stateDir, env, data) === upStateDir(data) ? upConfigFile(data) : ownConfigFile(env);
}

/** The daemon's configuration, if none is given, by the XDG rules. */
export function ownConfigFile(env: Environment): string {
  const configHome = env.XDG_CONFIG_HOME || join(env.HOME || homedir(), ".config");
  return join(configHome, "pinion", "device.toml");
}

/** The process that holds the state directory's lock, if it lives. */
export async function daemonPid(stateDir: string): Promise<number | undefined> {
  try {
    const { pid } = JSON.parse(await readFile(join(stateDir, "daemon.lock"), "utf8")) as { pid: number };
    process.kill(pid, 0);
    return pid;
  } catch {
    // No lock, half a lock, a process that is gone, or one of another user's that took its number.
    return undefined;
  }
}
