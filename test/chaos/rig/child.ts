import { type ChildProcess, spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Meddling } from "../shifted-clock.ts";

/** A process of the rig. Ends with the rig. */
export type Child = {
  readonly pid: number;
  readonly isAlive: boolean;
  /** Resolves with the first message of the process; rejects when the process ends before. */
  ready: Promise<unknown>;
  ended: Promise<void>;
  /** The last part of the process's standard error. */
  readonly errors: string;
  signal(signal: NodeJS.Signals): void;
  meddle(how: Meddling["meddle"]): void;
};

const preload = fileURLToPath(new URL("../shifted-clock.ts", import.meta.url));
const errorCharactersMax = 20_000;

const alive = new Set<ChildProcess>();
process.once("exit", () => {
  for (const child of alive) child.kill("SIGKILL");
});

export function startChild(options: {
  file: string;
  args: string[];
  env: Record<string, string>;
  /** Takes the text of file descriptor 3. */
  onRecord?: (text: string) => void;
  /** Takes the standard output. */
  onOutput?: (text: string) => void;
}): Child {
  const child: ChildProcess = spawn(
    process.execPath,
    ["--import", preload, "--disable-warning=ExperimentalWarning", options.file, ...options.args],
    {
      env: { ...process.env, NO_COLOR: "1", ...options.env },
      stdio: ["ignore", "pipe", "pipe", "pipe", "ipc"],
    },
  );
  let errors = "";
  let isAlive = true;
  child.stdout!.setEncoding("utf8").on("data", (text: string) => options.onOutput?.(text));
  child.stderr!.setEncoding("utf8").on("data", (text: string) => {
    errors = (errors + text).slice(-errorCharactersMax);
  });
  const records = child.stdio[3] as NodeJS.ReadableStream;
  records.setEncoding("utf8");
  records.on("data", (text: string) => options.onRecord?.(text));
  records.on("error", () => {});
  alive.add(child);
  const ended = new Promise<void>((resolve) => {
    // `close` comes after the last byte of the pipes.
    child.once("close", () => {
      isAlive = false;
      alive.delete(child);
      resolve();
    });
  });
  const ready = new Promise<unknown>((resolve, reject) => {
    child.once("message", resolve);
    ended.then(() => reject(new Error(`${options.file} ended early: ${errors}`)));
  });
  ready.catch(() => {});
  child.on("error", () => {});
  return {
    pid: child.pid!,
    get isAlive() {
      return isAlive;
    },
    ready,
    ended,
    get errors() {
      return errors;
    },
    signal(signal) {
      child.kill(signal);
    },
    meddle(how) {
      if (child.connected) child.send({ meddle: how }, () => {});
    },
  };
}
