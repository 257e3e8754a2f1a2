import { randomUUID } from "node:crypto";
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readRegularFile } from "./regular-file.ts";

/** A daemon's status for the commands on its machine, in `stateDir/status.json`. */
export interface DaemonStatus {
  pid: number;
  /** State of the connection, "serving" when connected. */
  connection: string;
  /** Reason for the missing connection; empty while connected. */
  reason: string;
  /** The configuration file; empty: none. */
  configFile: string;
  /**
   * Problem of the configuration file while the previous configuration is in force. Empty: none.
   */
  configProblem: string;
  /** True if the daemon takes `pinion device upgrade` (SIGUSR2). */
  takesUpgrades: boolean;
  /** The daemon's environment; undefined for a daemon of an older version. */
  environment: EnvironmentFacts | undefined;
}

/** Facts about a daemon's environment for `pinion doctor`: names of variables, without values. */
export interface EnvironmentFacts {
  path: string;
  home: string;
  workingDir: string;
  /** At most NAMES_MAX names. */
  names: string[];
}

const NAMES_MAX = 300;
const PATH_CHARACTERS_MAX = 8_000;

export function environmentFacts(env: NodeJS.ProcessEnv): EnvironmentFacts {
  return {
    path: (env.PATH ?? "").slice(0, PATH_CHARACTERS_MAX),
    home: env.HOME ?? "",
    workingDir: process.cwd(),
    names: Object.keys(env).sort().slice(0, NAMES_MAX),
  };
}

const STATUS_BYTES_MAX = 64 * 1024;
const pathOf = (stateDir: string) => join(stateDir, "status.json");

/** Writes the status, one write after the other. Not synced: a lost write does no harm. */
export class StatusFile {
  readonly #stateDir: string;
  #status: DaemonStatus;
  #writing: Promise<void> | undefined;
  #isStale = false;

  constructor(stateDir: string, facts: Pick<DaemonStatus, "configFile" | "takesUpgrades" | "environment">) {
    this.#stateDir = stateDir;
    this.#status = { pid: process.pid, connection: "", reason: "", configProblem: "", ...facts };
  }

  set(changes: Partial<DaemonStatus>): void {
    this.#status = { ...this.#status, ...changes };
    this.#isStale = true;
    this.#writing ??= this.#write();
  }

  /** Resolves after the last change is written. */
  async settled(): Promise<void> {
    await this.#writing;
  }

  async #write(): Promise<void> {
    while (this.#isStale) {
      this.#isStale = false;
      const path = pathOf(this.#stateDir);
      try {
        // A name that no program can have taken, for a FIFO would hold the write up for ever.
        const temporary = `${path}.${randomUUID()}.tmp`;
        await writeFile(temporary, JSON.stringify(this.#status), { mode: 0o600, flag: "wx" });
        await rename(temporary, path);
      } catch {
        // The outbox reports a full or broken disk.
      }
    }
    this.#writing = undefined;
  }
}

function factsOf(value: Partial<EnvironmentFacts> | undefined): EnvironmentFacts | undefined {
  if (value === undefined) return undefined;
  return {
    path: String(value.path ?? ""),
    home: String(value.home ?? ""),
    workingDir: String(value.workingDir ?? ""),
    names: Array.isArray(value.names) ? value.names.map(String) : [],
  };
}

/** The last written status; undefined if there is none or the file is unreadable. */
export async function readStatus(stateDir: string): Promise<DaemonStatus | undefined> {
  const found = await readRegularFile(pathOf(stateDir), { bytesMax: STATUS_BYTES_MAX });
  if (found.kind !== "read") return undefined;
  try {
    const value = JSON.parse(found.bytes.toString("utf8")) as Partial<DaemonStatus>;
    return {
      pid: Number(value.pid),
      connection: String(value.connection ?? ""),
      reason: String(value.reason ?? ""),
      configFile: String(value.configFile ?? ""),
      configProblem: String(value.configProblem ?? ""),
      takesUpgrades: value.takesUpgrades === true,
      environment: factsOf(value.environment),
    };
  } catch {
    return undefined;
  }
}
