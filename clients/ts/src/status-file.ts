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
}

const STATUS_BYTES_MAX = 16 * 1024;
const pathOf = (stateDir: string) => join(stateDir, "status.json");

/** Writes the status, one write after the other. Not synced: a lost write does no harm. */
export class StatusFile {
  readonly #stateDir: string;
  #status: DaemonStatus;
  #writing: Promise<void> | undefined;
  #isStale = false;

  constructor(stateDir: string, configFile: string) {
    this.#stateDir = stateDir;
    this.#status = { pid: process.pid, connection: "", reason: "", configFile, configProblem: "" };
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
        await writeFile(`${path}.tmp`, JSON.stringify(this.#status), { mode: 0o600 });
        await rename(`${path}.tmp`, path);
      } catch {
        // The outbox reports a full or broken disk.
      }
    }
    this.#writing = undefined;
  }
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
    };
  } catch {
    return undefined;
  }
}
