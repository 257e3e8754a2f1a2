import { execFileSync } from "node:child_process";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { AttemptName, Entry, Record } from "../history.ts";
import type { HostConfig, HostDevice } from "../host/main.ts";
import { programsFileOf, programsOf } from "../host/programs-file.ts";
import { type Child, startChild } from "./child.ts";

/** A process that holds devices; after a kill, the process comes back with their state. */
export type HostProcess = {
  readonly name: string;
  readonly devices: readonly HostDevice[];
  readonly child: Child | undefined;
  start(): Promise<void>;
  kill(): Promise<void>;
  /** Prevents all writes of the process to files, as on a full disk; or permits them again. */
  setDiskFull(isFull: boolean): void;
  /** The results on the disks of the process's devices. */
  held(): Promise<{ device: string; attempts: AttemptName[] }[]>;
  /** The entries that the child programs of the daemons have written. */
  programs(history: readonly Entry[]): Promise<Entry[]>;
};

const repository = fileURLToPath(new URL("../../../", import.meta.url));

export function createHost(options: {
  name: string;
  directory: string;
  config: HostConfig;
  /** The source tree of the devices. */
  sourceTree?: string | undefined;
  record: Record;
  onRecord: (text: string) => void;
}): HostProcess {
  const { name, record, config } = options;
  const configFile = join(options.directory, `${name}.json`);
  let child: Child | undefined;
  return {
    name,
    devices: config.devices,
    get child() {
      return child;
    },
    async start() {
      await mkdir(options.directory, { recursive: true });
      await writeFile(configFile, JSON.stringify(config));
      record({ kind: "host", host: name, phase: "started" });
      child = startChild({
        file: join(options.sourceTree ?? repository, "test/chaos/host/main.ts"),
        args: [configFile],
        env: {},
        onRecord: wholeLines(options.onRecord),
      });
      await child.ready;
    },
    async kill() {
      child?.signal("SIGKILL");
      await child?.ended;
      record({ kind: "host", host: name, phase: "killed" });
    },
    setDiskFull(isFull) {
      if (child?.isAlive) limitFiles(child.pid, isFull ? "0:unlimited" : "unlimited:unlimited");
    },
    async held() {
      const all = await Promise.all(config.devices.map(heldBy));
      return all.filter(({ attempts }) => attempts.length > 0);
    },
    async programs(history) {
      const daemons = config.devices.filter(({ isDaemon }) => isDaemon);
      const all = daemons.map(async (device) => {
        const text = await readFile(programsFileOf(device), "utf8").catch(() => "");
        return programsOf(device.deviceId, text, history);
      });
      return (await Promise.all(all)).flat();
    },
  };
}

/** Hands on whole lines: the output of a killed process ends in the middle of a line. */
function wholeLines(onLines: (text: string) => void): (text: string) => void {
  let rest = "";
  return (text) => {
    const end = text.lastIndexOf("\n") + 1;
    if (end > 0) onLines(rest + text.slice(0, end));
    rest = end > 0 ? text.slice(end) : rest + text;
  };
}

/** The completions in a device's outbox, by the names of their files. */
async function heldBy({ deviceId, stateDir }: HostConfig["devices"][number]) {
  const files = await readdir(join(stateDir, "outbox")).catch(() => []);
  const attempts = files
    .map((file) => /^([0-9a-f-]{36})\.([0-9a-f-]{36})\.completion$/i.exec(file))
    .flatMap((match) => (match ? [{ run: match[1]!, token: match[2]! }] : []));
  return { device: deviceId, attempts };
}

/**
 * Linux only: limits the size to which a process may grow files by writing. A write beyond the
 * limit is refused with EFBIG.
 */
function limitFiles(pid: number, limit: string): void {
  try {
    execFileSync("prlimit", ["--pid", String(pid), `--fsize=${limit}`], { stdio: "ignore" });
  } catch {
    // The process ended meanwhile.
  }
}

/** Whether this machine can limit the file sizes of a running process. */
export function canLimitFiles(): boolean {
  try {
    execFileSync("prlimit", ["--version"], { stdio: "ignore" });
    return true;
  } catch {
    return false;
  }
}
