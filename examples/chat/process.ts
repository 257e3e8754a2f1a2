import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const pinion = fileURLToPath(new URL("../../src/cli/main.ts", import.meta.url));
/** How long a command may take to say that it is ready: the first start makes a database. */
const patienceMs = 60_000;

/**
 * A `pinion` command in a process of its own; it is stopped at the end of the scope that holds it.
 */
export type PinionCommand = AsyncDisposable & {
  child: ChildProcess;
  /** The next line of its output that matches. */
  line(pattern: RegExp): Promise<string>;
};

export function startPinion(args: string[]): PinionCommand {
  const child = spawn(process.execPath, [pinion, ...args], {
    // Its own database, whatever this shell is used for otherwise.
    env: { ...process.env, DATABASE_URL: "", PINION_LOG_LEVEL: "error" },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const exited = once(child, "exit");
  const lines = createInterface({ input: child.stdout! });
  return {
    child,
    async line(pattern) {
      const signal = AbortSignal.timeout(patienceMs);
      const found = new Promise<string>((resolve) => {
        lines.on("line", (line) => {
          if (pattern.test(line)) resolve(line);
        });
      });
      const late = once(signal, "abort").then(() => {
        throw new Error(`pinion ${args[0]} did not start within ${patienceMs} ms`);
      });
      const ended = exited.then(([code]) => {
        throw new Error(`pinion ${args[0]} ended with code ${code}`);
      });
      for (const failure of [late, ended]) failure.catch(() => {});
      return Promise.race([found, late, ended]);
    },
    async [Symbol.asyncDispose]() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGTERM");
      await exited;
    },
  };
}
