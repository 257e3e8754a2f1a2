/**
 * The daemon of `pinion up`: a separate process, restarted after its end.
 *
 * - The daemon has its own process group: Ctrl-C at the terminal reaches only `up`, which stops the
 *   daemon in order.
 * - The daemon writes to a file: after a kill of `up` the daemon and its runs go on. The next `up`
 *   takes the daemon over if the fingerprint matches; otherwise `up` stops the old daemon first.
 * - After its end the daemon is restarted with a backoff, except with a wrong configuration, where
 *   a restart would not help.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { closeSync, statSync } from "node:fs";
import { join } from "node:path";
import { stripVTControlCharacters } from "node:util";
import { readRegularFileSync } from "@pinion/client";
import { codeOf } from "../../errors.ts";
import { sleep } from "../../time/abort.ts";
import type { Environment } from "../cli.ts";
import { openLog, writeWhole } from "../data-files.ts";
import { selfCommand } from "../device/self.ts";
import { daemonPid } from "../device/state-dir.ts";
import { exitCodes, Failure } from "../failures.ts";

export type DaemonOptions = {
  data: string;
  url: string;
  stateDir: string;
  configFile: string;
  env: Environment;
  /** Reports changes of the process after its first start: ended, started again. */
  onChange(message: string): void;
  /** Called when the daemon cannot run and is not started again. */
  onFailure(failure: Failure): void;
};

/** The last started daemon and its fingerprint. */
type DaemonRecord = { pid: number; fingerprint: string };

const recordFile = "daemon.json";
/** Bound on a file that is read, in bytes: the log is renamed beyond 10 MiB at each start. */
const fileBytesMax = 256 * 1024 * 1024;
const backoffMsMin = 500;
const backoffMsMax = 30_000;
/** Minimum run time in ms for resetting the backoff. */
const steadyMs = 60_000;
/**
 * The daemon's time for its programs at a stop, in ms; the results follow. `up` has 25 s for
 * everything.
 */
export const stopGraceMs = 6_000;
const flushMs = 2_000;
/**
 * Maximum backoff of the daemon's connection in ms: the server is on this machine, so longer pauses
 * save nothing.
 */
const backoffMaxMs = 2_000;
/** Time from SIGTERM to SIGKILL, in ms. */
const stopMs = stopGraceMs + flushMs + 2_000;
const pollMs = 50;

export class DaemonProcess {
  readonly #options: DaemonOptions;
  readonly #stop = new AbortController();
  readonly logFile: string;
  #pid: number | undefined;
  #isTakenOver = false;
  /** True once the daemon has run under this supervisor: its configuration was good then. */
  #wasInCharge = false;
  #supervision: Promise<void> | undefined;

  constructor(options: DaemonOptions) {
    this.#options = options;
    this.logFile = deviceLogFile(options.data);
  }

  start(): void {
    this.#supervision = this.#supervise();
  }

  /**
   * Resolves when the supervised daemon holds the state directory; to undefined if the signal
   * aborts first.
   */
  async inCharge(signal: AbortSignal): Promise<{ pid: number; isTakenOver: boolean } | undefined> {
    while (!signal.aborted) {
      const pid = await daemonPid(this.#options.stateDir);
      if (pid !== undefined && pid === this.#pid) {
        this.#wasInCharge = true;
        return { pid, isTakenOver: this.#isTakenOver };
      }
      await sleep(pollMs, signal);
    }
    return undefined;
  }

  /** Ends the daemon: SIGTERM, then SIGKILL after a delay. Idempotent. */
  async stop(): Promise<void> {
    this.#stop.abort();
    if (this.#pid !== undefined) await endProcess(this.#pid);
    await this.#supervision;
  }

  async #supervise(): Promise<void> {
    const { signal } = this.#stop;
    let backoffMs = backoffMsMin;
    while (!signal.aborted) {
      const startedAt = performance.now();
      const logged = statSync(this.logFile).size;
      const how = await this.#runOnce();
      if (signal.aborted) return;
      if (how === "misconfigured") {
        const failure = this.#misconfigured(logged);
        if (!this.#wasInCharge) {
          this.#options.onFailure(failure);
          return;
        }
        // The server goes on: a faulty edit of the file is no reason for ending the server.
        this.#options.onChange(`${failure.message}; trying again in ${backoffMs / 1000} s`);
        await sleep(backoffMs, signal);
        backoffMs = Math.min(backoffMsMax, backoffMs * 2);
        continue;
      }
      if (performance.now() - startedAt > steadyMs) backoffMs = backoffMsMin;
      if (how === "again") continue;
      this.#options.onChange(`the daemon ended (${how}); starting it again in ${backoffMs / 1000} s`);
      await sleep(backoffMs, signal);
      backoffMs = Math.min(backoffMsMax, backoffMs * 2);
    }
  }

  /**
   * A single run of a daemon. Resolves to the description of its end, to "again" if a restart is
   * possible at once, or to "misconfigured".
   */
  async #runOnce(): Promise<string> {
    const before = this.#readRecord();
    const child = this.#spawn();
    this.#pid = child.pid;
    this.#isTakenOver = false;
    const how = await new Promise<{ code: number | null; text: string }>((done) => {
      child.once("error", (error) => done({ code: null, text: error.message }));
      child.once("exit", (code, signal) => done({ code, text: signal ?? `code ${code}` }));
    });
    this.#pid = undefined;
    if (how.code === exitCodes.usage) return "misconfigured";
    if (how.code !== exitCodes.conflict || this.#stop.signal.aborted) return how.text;
    // Another daemon holds the state directory: left by an earlier `up`.
    const orphan = await daemonPid(this.#options.stateDir);
    if (orphan === undefined) return "again";
    if (before?.pid === orphan && before.fingerprint === this.#fingerprint()) {
      this.#writeRecord(before);
      this.#isTakenOver = true;
      this.#pid = orphan;
      await waitForEnd(orphan, this.#stop.signal);
      if (this.#stop.signal.aborted) return "stopped";
      this.#pid = undefined;
      return "gone";
    }
    this.#options.onChange(
      `stopping the daemon of an earlier start (process ${orphan}), which is set up differently`,
    );
    await endProcess(orphan);
    return "again";
  }

  /** The failure from the daemon's last log lines since `fromByte`. */
  #misconfigured(fromByte: number): Failure {
    const said = lastError(bytesOf(this.logFile).subarray(fromByte).toString("utf8"));
    return new Failure(
      exitCodes.usage,
      `the daemon cannot start${said ? `: ${said}` : " with its configuration"}`,
      `correct ${this.#options.configFile} and start again; the daemon's log is ${this.logFile}`,
    );
  }

  #spawn(): ChildProcess {
    const { url, stateDir, configFile, env } = this.#options;
    const [program, ...first] = selfCommand();
    const log = openLog(this.logFile);
    try {
      const child = spawn(
        program,
        [
          ...first,
          ...["device", "run", "--json", "--url", url, "--state-dir", stateDir, "--config", configFile],
          ...[
            "--stop-grace",
            `${stopGraceMs}ms`,
            "--flush",
            `${flushMs}ms`,
            "--backoff-max",
            `${backoffMaxMs}ms`,
          ],
        ],
        { detached: true, stdio: ["ignore", log, log], env: daemonEnvironment(env) },
      );
      if (child.pid !== undefined) this.#writeRecord({ pid: child.pid, fingerprint: this.#fingerprint() });
      return child;
    } finally {
      closeSync(log);
    }
  }

  /** Fingerprint of a daemon's set-up: its server, and its configuration. */
  #fingerprint(): string {
    const { url, stateDir, configFile } = this.#options;
    return createHash("sha256")
      .update(JSON.stringify([url, stateDir, bytesOf(configFile).toString("utf8")]))
      .digest("hex");
  }

  #readRecord(): DaemonRecord | undefined {
    try {
      return JSON.parse(bytesOf(join(this.#options.data, recordFile)).toString("utf8")) as DaemonRecord;
    } catch {
      // No earlier start, or a partial record: the other daemon's set-up is unknown.
      return undefined;
    }
  }

  #writeRecord(record: DaemonRecord): void {
    writeWhole(join(this.#options.data, recordFile), JSON.stringify(record), 0o600);
  }
}

/**
 * Empty for a missing file (an editor may be replacing it), and for anything else that a program of
 * the device may have put there.
 */
function bytesOf(file: string): Buffer {
  const found = readRegularFileSync(file, { bytesMax: fileBytesMax, isLinkFollowed: true });
  return found.kind === "read" ? found.bytes : Buffer.alloc(0);
}

export function deviceLogFile(data: string): string {
  return join(data, "device.log");
}

/** The last error among a command's lines of JSON (see command-line.ts). Empty: none. */
export function lastError(log: string): string {
  const lines = stripVTControlCharacters(log).split("\n");
  for (const line of lines.toReversed()) {
    if (!line.startsWith('{"error":')) continue;
    try {
      return (JSON.parse(line) as { error: string }).error;
    } catch {
      // A partial line: the daemon was killed during the write.
    }
  }
  return "";
}

/**
 * Without our own credentials: the daemon has a device token, and its programs must not get ours.
 */
function daemonEnvironment(env: Environment): Environment {
  const { PINION_TOKEN: _token, DATABASE_URL: _url, DATABASE_DIRECT_URL: _direct, ...rest } = env;
  return rest;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === "EPERM";
  }
}

async function waitForEnd(pid: number, signal: AbortSignal): Promise<void> {
  while (isAlive(pid) && !signal.aborted) await sleep(1_000, signal);
}

async function endProcess(pid: number): Promise<void> {
  const never = new AbortController().signal;
  try {
    process.kill(pid, "SIGTERM");
    const deadline = performance.now() + stopMs;
    while (isAlive(pid) && performance.now() < deadline) await sleep(pollMs, never);
    if (isAlive(pid)) process.kill(pid, "SIGKILL");
  } catch {
    // The process has ended by itself.
  }
}
