/**
 * The trial of a new program. The old daemon has stopped in order and stays as the parent: the new
 * program starts from its temporary place with the same arguments and the same state. Only a new
 * program that was welcomed by the server, and lives some seconds longer, takes the old program's
 * place by a rename. So a crash, a hang or a loss of power before the rename leaves the old program
 * in its place. A rollback starts the old program again, in the same process.
 *
 *   old daemon ──stops──▶ parent ──spawns──▶ new daemon
 *                           │  welcomed in time: rename, "kept"; the new daemon ends with code 75
 *                           │  when it is idle, and the parent becomes the new program (execve)
 *                           └─ ended, or not welcomed in time: "rolled_back"; the parent becomes
 *                              the old program again (execve)
 */
import { type ChildProcess, spawn } from "node:child_process";
import { renameSync, rmSync } from "node:fs";
import { readStatus } from "@pinion/client";
import { sleep } from "../../../time/abort.ts";
import type { Environment } from "../../cli.ts";
import { exitCodes } from "../../exit-codes.ts";
import { becomeConcealed } from "../conceal.ts";
import { readRecord, type UpgradeRecord, writeRecord } from "./record.ts";

export type Trial = {
  /** The program in force, and the fetched program. */
  program: string;
  next: string;
  /** The daemon's arguments, without the program. */
  args: readonly string[];
  env: Environment;
  stateDir: string;
  record: Omit<UpgradeRecord, "at">;
  tell(message: string): void;
};

/** Time in ms until the server's welcome; a usual start takes less than two seconds. */
const comeUpMs = 60_000;
/** Time in ms that a welcomed program has to live on. */
const steadyMs = 3_000;
const pollMs = 100;
const never = new AbortController().signal;
/** Time in ms from SIGTERM to SIGKILL: above the daemon's stop grace and flush. */
const stopMs = 40_000;
/** Interval in ms in which a daemon on trial looks for its parent's decision. */
const lookMs = 500;

/** Runs the trial. Returns an exit code for the process, or does not return (execve). */
export async function tryProgram(trial: Trial): Promise<number> {
  const { program, next, args, env, stateDir, record, tell } = trial;
  writeRecord(stateDir, { ...record, state: "trying", running: 0, parentPid: process.pid });
  const child = spawn(next, args, { env, stdio: "inherit" });
  const ended = new Promise<Ended>((done) => {
    child.once("error", (error) => done({ code: undefined, how: error.message }));
    child.once("exit", (code, signal) => done({ code: code ?? undefined, how: signal ?? `code ${code}` }));
  });
  const signals = handOn(child);
  try {
    const problem = await whyNot(stateDir, child, ended);
    if (signals.isStopping()) {
      rmSync(next, { force: true });
      writeRecord(stateDir, { ...record, state: "failed", running: 0, problem: "the daemon was stopped" });
      return (await ended).code ?? exitCodes.failed;
    }
    if (problem !== undefined) {
      await end(child, ended);
      rmSync(next, { force: true });
      writeRecord(stateDir, { ...record, state: "rolled_back", running: 0, problem });
      tell(`${record.to} did not come up (${problem}); ${record.from} goes on`);
      becomeConcealed(program, args, env);
    }
    renameSync(next, program);
    writeRecord(stateDir, { ...record, state: "kept", running: 0, parentPid: process.pid });
    tell(`upgraded from ${record.from} to ${record.to}`);
    const { code } = await ended;
    if (code === exitCodes.startAgain && !signals.isStopping()) becomeConcealed(program, args, env);
    return code ?? exitCodes.failed;
  } finally {
    signals.dispose();
  }
}

/**
 * For a daemon on trial: calls `end` once the daemon's program has its place and no program of a
 * run is in progress. Does nothing for other daemons.
 */
export async function endTrialWhenIdle(options: {
  stateDir: string;
  running: () => number;
  refuseNew: () => void;
  end: () => void;
  signal: AbortSignal;
}): Promise<void> {
  const { stateDir, running, signal } = options;
  const isTrial = (record: UpgradeRecord | undefined) => record?.parentPid === process.ppid;
  const first = await readRecord(stateDir);
  if (first?.state !== "trying" || !isTrial(first)) return;
  while (!signal.aborted) {
    await sleep(lookMs, signal);
    const record = await readRecord(stateDir);
    // A parent that is gone cannot start the program again.
    if (!isTrial(record)) return;
    if (record?.state !== "kept" || running() > 0) continue;
    options.refuseNew();
    if (running() === 0) return options.end();
  }
}

type Ended = { code: number | undefined; how: string };

/** Why the new program is not kept; undefined once the program has come up. */
async function whyNot(
  stateDir: string,
  child: ChildProcess,
  ended: Promise<Ended>,
): Promise<string | undefined> {
  let isOver: Ended | undefined;
  void ended.then((how) => {
    isOver = how;
  });
  const isServing = async () => {
    const status = await readStatus(stateDir);
    return status?.pid === child.pid && status?.connection === "serving";
  };
  const startedAt = performance.now();
  let servingAt: number | undefined;
  let reason = "";
  for (;;) {
    await sleep(pollMs, never);
    const now = performance.now();
    if (isOver) return `the program ended with ${isOver.how}`;
    if (await isServing()) servingAt ??= now;
    else reason = (await readStatus(stateDir))?.reason || reason;
    if (servingAt !== undefined && now - servingAt >= steadyMs) return undefined;
    if (servingAt === undefined && now - startedAt >= comeUpMs) {
      return `the server did not welcome the program within ${comeUpMs / 1000} s${reason && `: ${reason}`}`;
    }
  }
}

/** The parent's signals are the new daemon's. */
function handOn(child: ChildProcess): { isStopping(): boolean; dispose(): void } {
  let stopping = false;
  const stop = (signal: NodeJS.Signals) => {
    stopping = true;
    child.kill(signal);
  };
  const reload = () => child.kill("SIGHUP");
  process.on("SIGTERM", stop).on("SIGINT", stop).on("SIGHUP", reload);
  return {
    isStopping: () => stopping,
    dispose: () => process.off("SIGTERM", stop).off("SIGINT", stop).off("SIGHUP", reload),
  };
}

async function end(child: ChildProcess, ended: Promise<Ended>): Promise<void> {
  child.kill("SIGTERM");
  const timer = setTimeout(() => child.kill("SIGKILL"), stopMs);
  await ended;
  clearTimeout(timer);
}
