import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { readRegularFile } from "./regular-file.ts";

/** What a daemon says of itself to the commands of its machine, in `stateDir/status.json`. */
export interface DaemonStatus {
  pid: number;
  /** "serving", or what else its connection is. */
  connection: string;
  /** Why there is no connection; empty while there is one. */
  reason: string;
  /** The file of its configuration; empty: it has none. */
  configFile: string;
  /** What is wrong with that file; the configuration before it is in force. Empty: nothing. */
  configProblem: string;
}

const STATUS_BYTES_MAX = 16 * 1024;
const pathOf = (stateDir: string) => join(stateDir, "status.json");

/** Writes the status, one write after the other. Losing one is no harm: it is not synced. */
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

  /** Resolves once what was set is written. */
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
        // A disk that takes nothing is told by what matters more: the outbox.
      }
    }
    this.#writing = undefined;
  }
}

/** The status as it was last written; undefined if there is none that can be read. */
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
