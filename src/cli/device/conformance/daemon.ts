import { type ChildProcess, spawn } from "node:child_process";
import type { Environment } from "../../cli.ts";

const linesMax = 12;

/** The daemon that is looked at, in a process group of its own, so that a wrapper around it dies with it. */
export class DaemonProcess {
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  /** The exit code, the signal, or why it could not be started. */
  readonly ended: Promise<number | string>;
  hasEnded = false;

  constructor(command: readonly string[], env: Environment) {
    const [program, ...args] = command;
    this.#child = spawn(program!, args, { env, stdio: ["ignore", "pipe", "pipe"], detached: true });
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
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

  /** The last lines that it printed. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /** Ends it as a power cut would; its agents are in other groups and go on. */
  async kill(): Promise<void> {
    if (this.hasEnded || this.#child.pid === undefined) return;
    try {
      process.kill(-this.#child.pid, "SIGKILL");
    } catch {
      // It was faster.
    }
    await this.ended;
  }
}
