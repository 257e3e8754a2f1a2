/** Real processes of the `pinion` command: started, watched, killed. */

import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { inject, onTestFinished } from "vitest";

/**
 * The time limit of a test's wait for a process, in milliseconds: below the time limit of a test,
 * so that a failure says what was waited for. The first start of a server takes 20 s at a load of
 * 20.
 */
const patienceMs = 45_000;

export type PinionProcess = {
  child: ChildProcess;
  /** Resolves with the first matching line of standard output, including earlier lines. */
  line(pattern: RegExp): Promise<string>;
  /** Sends a signal and waits for the end. */
  kill(signal: NodeJS.Signals): Promise<void>;
};

/** Starts `pinion <args>`; the process is killed after the test. */
export function startPinion(args: string[], env: Record<string, string> = {}): PinionProcess {
  const child = spawn(process.execPath, [inject("pinionMain"), ...args], {
    env: { ...process.env, NO_COLOR: "1", PINION_LOG_LEVEL: "warn", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  let errors = "";
  let wake: (() => void) | undefined;
  child.stdout!.on("data", (data) => {
    output += data;
    wake?.();
  });
  child.stderr!.on("data", (data) => {
    errors += data;
  });
  const ended = new Promise<void>((resolve) => {
    child.on("exit", () => {
      wake?.();
      resolve();
    });
  });
  const kill = async (signal: NodeJS.Signals) => {
    child.kill(signal);
    await ended;
  };
  onTestFinished(() => kill("SIGKILL"));
  return {
    child,
    kill,
    async line(pattern) {
      const deadline = performance.now() + patienceMs;
      for (;;) {
        const found = output.split("\n").find((line) => pattern.test(line));
        if (found !== undefined) return found;
        const leftMs = deadline - performance.now();
        if (leftMs <= 0 || child.exitCode !== null || child.signalCode !== null) {
          throw new Error(`no line ${pattern} of pinion ${args.join(" ")}\n${output}\n${errors}`);
        }
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, leftMs);
          wake = () => {
            clearTimeout(timer);
            resolve();
          };
        });
        wake = undefined;
      }
    },
  };
}

/**
 * A directory that is removed after the test, with the processes that name it in their command
 * lines: a killed daemon leaves its programs to the next daemon of its directory, and there is
 * none.
 */
export async function temporaryDirectory(): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "pinion-test-"));
  onTestFinished(async () => {
    for (const pid of processesWith(path)) {
      try {
        process.kill(pid, "SIGKILL");
      } catch {
        // It has ended meanwhile.
      }
    }
    await rm(path, { recursive: true, force: true });
  });
  return path;
}

/** Polls `look` until a result is returned; for changes without a notification. */
export async function eventually<T>(
  look: () => Promise<T | undefined> | T | undefined,
  what: string,
): Promise<T> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const seen = await look();
    if (seen !== undefined && seen !== false) return seen;
    if (performance.now() > deadline) throw new Error(`waited in vain for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

/** The processes whose command line contains a text (Linux). */
export function processesWith(text: string): number[] {
  if (process.platform !== "linux") return [];
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(text);
      } catch {
        return false;
      }
    })
    .map(Number);
}

/**
 * A program listens at the port of this machine; undefined if none does, for {@link eventually}.
 */
export function isListening(port: number): Promise<true | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(undefined));
  });
}
