import { type ChildProcessByStdio, spawn } from "node:child_process";
import type { Readable } from "node:stream";
import type { Environment } from "../../cli.ts";

const linesMax = 12;

/** The tested daemon, in a process group of its own, so a wrapper ends with the daemon. */
export class DaemonProcess {
  readonly #child: ChildProcessByStdio<null, Readable, Readable>;
  readonly #lines: string[] = [];
  /** The exit code, the signal, or the reason of a failed start. */
  readonly ended: Promise<number | string>;
  hasEnded = false;

  constructor(command: readonly string[], env: Environment) {
    const [program = "", ...args] = command;
    this.#child = spawn(program, args, { env, stdio: ["ignore", "pipe", "pipe"], detached: true });
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        this.#lines.push(...text.split("\n").filter((line) => line.trim() !== ""));
        this.#lines.splice(0, this.#lines.length - linesMax);
      });
    }
    this.ended = new Promise((resolve) => {
      this.#child.on("error", (error) => {
        this.hasEnded = true;
        resolve(error.message);
      });
      this.#child.on("exit", (code, signal) => {
        this.hasEnded = true;
        resolve(code ?? signal ?? "unknown");
      });
    });
  }

  /** The last lines of the daemon's output. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /** Ends the daemon like a power cut; its agents are in other groups and go on. */
  async kill(): Promise<void> {
    if (this.hasEnded || this.#child.pid === undefined) return;
    try {
      process.kill(-this.#child.pid, "SIGKILL");
    } catch {
      // The process has ended already.
    }
    await this.ended;
  }
}
