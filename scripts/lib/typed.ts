/** Command lines typed by an account, and programs that are read until they print something. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import type { ProcessorTime } from "./processor-time.ts";

export type Account = {
  home: string;
  uid: number | undefined;
  env: Record<string, string>;
  /** Counts what the account's processes use, where the machine can count it. */
  processor: ProcessorTime | undefined;
};

/** Starts a line in a shell of the account, as the leader of a process group. */
export function started(who: Account, line: string, cwd = who.home) {
  const join = who.processor ? `echo $$ > '${who.processor.processesFile}'\n` : "";
  return spawn("sh", ["-c", join + line], {
    cwd,
    env: who.env,
    ...(who.uid === undefined ? {} : { uid: who.uid, gid: who.uid }),
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
}

/**
 * Types a line into a shell of the account; resolves with standard output, rejects unless code 0.
 */
export function typed(who: Account, line: string, cwd = who.home): Promise<string> {
  return new Promise((done, fail) => {
    const child = started(who, line, cwd);
    let [out, err] = ["", ""];
    child.stdout.on("data", (chunk) => {
      out += chunk;
    });
    child.stderr.on("data", (chunk) => {
      err += chunk;
    });
    // Not "close": a daemon in the background may hold the pipes.
    child.on("exit", (code) =>
      setImmediate(() => (code === 0 ? done(out) : fail(new Error(`${line}: code ${code}\n${out}\n${err}`)))),
    );
  });
}

/** The output of a program up to and including the pattern; rejects if the program ends before. */
export function untilPrinted(child: ChildProcess, pattern: RegExp): Promise<string> {
  return new Promise((done, fail) => {
    let text = "";
    for (const stream of [child.stdout, child.stderr]) {
      stream?.on("data", (chunk) => {
        text += chunk;
        if (pattern.test(text)) done(text);
      });
    }
    child.on("exit", (code) => fail(new Error(`the program ended with ${code}:\n${text}`)));
  });
}

/** Does something with a program that leads its process group, and then stops it as Ctrl-C does. */
export async function thenStopped<T>(child: ChildProcess, act: () => Promise<T>): Promise<T> {
  const ended = once(child, "exit");
  try {
    return await act();
  } finally {
    if (child.exitCode === null && child.pid) process.kill(-child.pid, "SIGINT");
    await ended;
  }
}
