import { unwatchFile, watchFile } from "node:fs";
import { join } from "node:path";
import { messageOf } from "../device/errors.ts";
import { writeDurably } from "../outbox/durable-file.ts";
import { readRegularFileSync } from "../regular-file.ts";
import { type DeviceConfig, loadConfig, parseConfig } from "./config.ts";
import { ConfigError } from "./config-problems.ts";

/** Polling interval of the file, in ms. Polling also notices editors that replace the file. */
const LOOK_MS = 2_000;
const CONFIG_BYTES_MAX = 1024 * 1024;

const lastGoodPath = (stateDir: string) => join(stateDir, "device.last-good.toml");

/** A configuration, and the file's problem if the configuration is an earlier version. */
export interface LoadedConfig {
  config: DeviceConfig;
  problem: string | undefined;
}

/**
 * The file's configuration; if the file has errors, the last good configuration in the state
 * directory. Throws a ConfigError if there is neither.
 */
export function loadLastingConfig(file: string, stateDir: string): LoadedConfig {
  try {
    return { config: loadConfig(file), problem: undefined };
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    const last = readRegularFileSync(lastGoodPath(stateDir), { bytesMax: CONFIG_BYTES_MAX });
    if (last.kind !== "read") throw error;
    try {
      return { config: parseConfig(last.bytes.toString("utf8")), problem: error.message };
    } catch {
      throw error;
    }
  }
}

/** Stores the file's current content as the last good configuration. */
export async function keepLastGood(file: string, stateDir: string): Promise<void> {
  const found = readRegularFileSync(file, { bytesMax: CONFIG_BYTES_MAX, isLinkFollowed: true });
  if (found.kind === "read") await writeDurably(lastGoodPath(stateDir), found.bytes);
}

/** Polls a file and reads the file again after a change. */
export function watchConfig(options: {
  file: string;
  /** Throws a ConfigError for a configuration not usable on this machine. */
  use: (config: DeviceConfig) => void;
  onGood: () => void;
  onBad: (problem: string) => void;
}): { reload(): void; close(): void } {
  const { file } = options;
  let seen = contentOf(file);
  const reload = () => {
    try {
      options.use(loadConfig(file));
      options.onGood();
    } catch (error) {
      options.onBad(messageOf(error));
    }
  };
  const look = () => {
    const now = contentOf(file);
    if (now === seen) return;
    seen = now;
    reload();
  };
  watchFile(file, { interval: LOOK_MS, persistent: false }, look);
  return { reload, close: () => unwatchFile(file, look) };
}

function contentOf(file: string): string | undefined {
  const found = readRegularFileSync(file, { bytesMax: CONFIG_BYTES_MAX, isLinkFollowed: true });
  return found.kind === "read" ? found.bytes.toString("utf8") : found.kind;
}
