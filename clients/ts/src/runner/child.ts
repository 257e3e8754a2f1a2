import { type ChildProcess, spawn } from "node:child_process";
import { statSync } from "node:fs";
import type { Readable, Writable } from "node:stream";
import { hasCode, messageOf } from "../device/errors.ts";
import { TIMER_MS_MAX } from "../device/lifecycle.ts";
import { KeptOutput } from "../kept-output.ts";
import { hasEnded } from "../process-table.ts";
import { type Confinement, confine, unconfined } from "./confinement.ts";
import { endGroup } from "./process-group.ts";
import { Redaction } from "./redaction.ts";

export interface ChildOptions {
  command: [string, ...string[]];
  cwd: string | undefined;
  env: Record<string, string>;
  /** Written to stdin, which is then closed; undefined: stdin is empty from the start. */
  stdin: string | undefined;
  /**
   * Receives the program's pipes after the start; stdin then stays open after `stdin` was written,
   * until the caller ends the pipe.
   */
  onPipes?: (pipes: { stdin: Writable; stdout: Readable }) => void;
  timeoutMs: number | undefined;
  /** Time without output in ms, after which the program is ended. */
  idleTimeoutMs?: number | undefined;
  killGraceMs: number;
  outputLimitBytes: number;
  /** Isolation of the program from the daemon; left out: none. */
  confinement?: Confinement;
  /** Directories made visible although hidden by the confinement. */
  shown?: string[];
  /** Secrets removed from the output before any reader gets the bytes; see `secretsOf`. */
  secrets?: readonly string[];
  /** Ends the child and all processes started by the child. */
  signal: AbortSignal;
  onStart(pid: number): void;
  onOutput(stream: "stdout" | "stderr", data: Buffer): void;
}

export interface ChildEnd {
  /**
   * `unstartable`: no child was started. `timeout`, `idle`, `aborted`: the daemon ended the child.
   */
  kind: "exited" | "timeout" | "idle" | "aborted" | "unstartable";
  exitCode: number | undefined;
  signal: NodeJS.Signals | undefined;
  /**
   * Stdout; beyond `outputLimitBytes` only its beginning and end, with a marker for the missing
   * bytes.
   */
  stdout: string;
  isOutputTruncated: boolean;
  /** The end of stderr, in whole lines if possible. */
  stderrTail: string;
  durationMs: number;
  /** Number of secrets removed from the output. */
  hiddenSecrets: number;
  /** Reason of a failed start, for people. */
  problem: string | undefined;
}

/** Bound on the kept stderr, in bytes. */
const STDERR_TAIL_BYTES = 8 * 1024;
/**
 * Time for reading the pipes after the child's exit, in ms. A grandchild with inherited pipes may
 * hold these open for ever, so waiting for `close` alone is no option.
 */
const DRAIN_MS = 2_000;

/**
 * Runs a program in its own process group and resolves to its end, after the end of the whole
 * group. Never rejects: errors are among the ends.
 */
export async function runChild(options: ChildOptions): Promise<ChildEnd> {
  const startedAt = performance.now();
  const output = new ChildOutput(options);
  const end = (kind: ChildEnd["kind"], rest: Partial<ChildEnd> = {}): ChildEnd => ({
    kind,
    exitCode: undefined,
    signal: undefined,
    ...output.kept(),
    durationMs: performance.now() - startedAt,
    problem: undefined,
    ...rest,
  });

  const missing = problemWithDirectory(options.cwd);
  if (missing !== undefined) return end("unstartable", { problem: missing });
  if (options.signal.aborted) return end("aborted");
  const started = startChild(options);
  if ("problem" in started) return end("unstartable", started);
  const { child } = started;
  const exit = exitOf(child);
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  for (const pipe of [child.stdin, child.stdout, child.stderr]) {
    // EPIPE from a program without interest in its stdin; ignored.
    pipe?.on("error", () => {});
  }
  const { pid } = child;
  if (pid === undefined) {
    const failure = await exit;
    return end("unstartable", { problem: startProblem(options.command[0], failure.error) });
  }
  const ending = endingOf(pid, exit, options);
  output.read(child, ending.heard);
  options.onStart(pid);
  feed(child, options);

  const { exitCode, signal } = await exit;
  const kind = ending.kind();
  // Processes left in the program's group belong to the attempt and end with the attempt.
  await Promise.all([
    ending.ended(),
    kind === "exited" ? endGroupAfterExit(pid, closed, options) : undefined,
  ]);
  await within(closed, DRAIN_MS);
  output.end(child);
  return end(kind, { exitCode, signal });
}

/** Starts the program, within its confinement. */
function startChild(options: ChildOptions): { child: ChildProcess } | { problem: string } {
  const start = confine(options.confinement ?? unconfined, {
    command: options.command,
    env: options.env,
    cwd: options.cwd,
    shown: options.shown ?? [],
  });
  if ("missing" in start) return { problem: missingProgram(start.missing) };
  const [starter, ...args] = start.command;
  const isFed = options.stdin !== undefined || options.onPipes !== undefined;
  try {
    const child = spawn(starter, args, {
      cwd: options.cwd,
      env: start.env,
      ...(start.uid === undefined ? {} : { uid: start.uid, gid: start.gid }),
      detached: process.platform !== "win32",
      windowsHide: true,
      stdio: [isFed ? "pipe" : "ignore", "pipe", "pipe"],
    });
    return { child };
  } catch (error) {
    return { problem: startProblem(options.command[0], error) };
  }
}

/** Writes the program's input, and hands the pipes to a caller with a dialogue. */
function feed(child: ChildProcess, { stdin, onPipes }: ChildOptions): void {
  if (onPipes !== undefined && child.stdin !== null && child.stdout !== null) {
    if (stdin !== undefined) child.stdin.write(stdin);
    onPipes({ stdin: child.stdin, stdout: child.stdout });
  } else child.stdin?.end(stdin);
}

/** The output of a program, without secrets, within the bounds of the options. */
class ChildOutput {
  readonly #stdout: KeptOutput;
  readonly #stderr = new Tail(STDERR_TAIL_BYTES);
  readonly #redactions: Record<"stdout" | "stderr", Redaction>;
  readonly #onOutput: ChildOptions["onOutput"];
  #heard = () => {};

  constructor({ outputLimitBytes, secrets = [], onOutput }: ChildOptions) {
    this.#stdout = new KeptOutput(outputLimitBytes);
    this.#redactions = { stdout: new Redaction(secrets), stderr: new Redaction(secrets) };
    this.#onOutput = onOutput;
  }

  /** Reads both streams; `heard` is called for every piece. */
  read(child: ChildProcess, heard: () => void): void {
    this.#heard = heard;
    for (const stream of ["stdout", "stderr"] as const) {
      child[stream]?.on("data", (data: Buffer) => this.#pass(stream, this.#redactions[stream].add(data)));
    }
  }

  /** Stops reading; the held back ends of both streams are passed on. */
  end(child: ChildProcess): void {
    child.stdout?.destroy();
    child.stderr?.destroy();
    for (const stream of ["stdout", "stderr"] as const) this.#pass(stream, this.#redactions[stream].end());
  }

  kept(): Pick<ChildEnd, "stdout" | "isOutputTruncated" | "stderrTail" | "hiddenSecrets"> {
    return {
      stdout: this.#stdout.text(),
      isOutputTruncated: this.#stdout.isCut,
      stderrTail: this.#stderr.text(),
      hiddenSecrets: this.#redactions.stdout.count + this.#redactions.stderr.count,
    };
  }

  #pass(stream: "stdout" | "stderr", data: Buffer): void {
    this.#heard();
    if (data.length === 0) return;
    if (stream === "stdout") this.#stdout.add(data);
    else this.#stderr.add(data);
    this.#onOutput(stream, data);
  }
}

/**
 * Ends leftover processes of the group, after reading their output for a moment: a background job
 * of a shell may still be writing.
 */
async function endGroupAfterExit(pid: number, closed: Promise<void>, options: ChildOptions): Promise<void> {
  await within(closed, Math.min(DRAIN_MS, 500));
  await endGroup(pid, { graceMs: options.killGraceMs, isIsolated: isIsolated(options) });
}

const isIsolated = (options: ChildOptions) => options.confinement?.bwrap !== undefined;

/** Ends the group at the timeout or the abort, unless the child exits before. */
function endingOf(
  pid: number,
  exit: Promise<unknown>,
  options: ChildOptions,
): { kind(): Exclude<ChildEnd["kind"], "unstartable">; ended(): Promise<void>; heard(): void } {
  let kind: Exclude<ChildEnd["kind"], "unstartable"> = "exited";
  let ended: Promise<void> = Promise.resolve();
  const begin = (why: "timeout" | "idle" | "aborted") => {
    // A program that ended by itself before the abort or the timeout keeps its own result.
    if (kind !== "exited" || hasEnded(pid)) return;
    kind = why;
    ended = endGroup(pid, { graceMs: options.killGraceMs, isIsolated: isIsolated(options) });
  };
  const onAbort = () => begin("aborted");
  options.signal.addEventListener("abort", onAbort, { once: true });
  const timer =
    options.timeoutMs === undefined
      ? undefined
      : setTimeout(() => begin("timeout"), Math.min(options.timeoutMs, TIMER_MS_MAX));
  const { idleTimeoutMs } = options;
  const idleTimer =
    idleTimeoutMs === undefined
      ? undefined
      : setTimeout(() => begin("idle"), Math.min(idleTimeoutMs, TIMER_MS_MAX));
  void exit.then(() => {
    clearTimeout(timer);
    clearTimeout(idleTimer);
    options.signal.removeEventListener("abort", onAbort);
  });
  return { kind: () => kind, ended: () => ended, heard: () => void idleTimer?.refresh() };
}

interface Exit {
  exitCode: number | undefined;
  signal: NodeJS.Signals | undefined;
  error: Error | undefined;
}

function exitOf(child: ChildProcess): Promise<Exit> {
  return new Promise((resolve) => {
    child.on("error", (error) => {
      // Node also emits `error` for a signal not sent; only a child without a pid ends here.
      if (child.pid === undefined) resolve({ exitCode: undefined, signal: undefined, error });
    });
    child.once("exit", (exitCode, signal) =>
      resolve({ exitCode: exitCode ?? undefined, signal: signal ?? undefined, error: undefined }),
    );
  });
}

function problemWithDirectory(cwd: string | undefined): string | undefined {
  if (cwd === undefined) return undefined;
  try {
    return statSync(cwd).isDirectory() ? undefined : `the working directory ${cwd} is not a directory`;
  } catch {
    return `the working directory ${cwd} does not exist; create it, or change "cwd"`;
  }
}

function startProblem(program: string, error: unknown): string {
  if (hasCode(error, "ENOENT")) return missingProgram(program);
  if (hasCode(error, "EACCES")) return `${program} may not be executed; check its permissions`;
  if (hasCode(error, "E2BIG"))
    return `${program} was given more arguments or environment than the system takes`;
  return `${program} could not be started: ${messageOf(error)}`;
}

function missingProgram(program: string): string {
  return program.includes("/")
    ? `${program} does not exist; correct "command"`
    : `command not found: ${program}; install it, or give its full path in "command" (a service often has a shorter PATH than your shell)`;
}

async function within(promise: Promise<void>, ms: number): Promise<void> {
  let timer: NodeJS.Timeout | undefined;
  await Promise.race([
    promise,
    new Promise<void>((resolve) => {
      timer = setTimeout(resolve, ms);
    }),
  ]);
  clearTimeout(timer);
}

/** The last bytes of a stream. */
class Tail {
  readonly #limitBytes: number;
  #bytes: Buffer = Buffer.alloc(0);

  constructor(limitBytes: number) {
    this.#limitBytes = limitBytes;
  }

  add(data: Buffer): void {
    const joined = Buffer.concat([this.#bytes, data.subarray(-this.#limitBytes)]);
    this.#bytes = Buffer.from(joined.subarray(-this.#limitBytes));
  }

  text(): string {
    let start = 0;
    while (start < 3 && ((this.#bytes[start] ?? 0) & 0xc0) === 0x80) start += 1;
    return this.#bytes.toString("utf8", start);
  }
}
