import type { Command } from "commander";
import pc from "picocolors";
import { exitCodes } from "./exit-codes.ts";
import { forTerminal, TerminalText } from "./print/terminal.ts";

/** The process's environment, as read by `environment()` in src/environment.ts. */
export type Environment = Record<string, string | undefined>;

type Colors = ReturnType<typeof pc.createColors>;

/** Environment and output streams of a command. */
export type Cli = {
  env: Environment;
  colors: Colors;
  /** True if standard output is a terminal: columns may be cut and lines redrawn. */
  isTerminal: boolean;
  /** Width of the terminal in characters; infinite without a terminal. */
  columns: number;
  /** Prints a line of the result. */
  out(line: string): void;
  /** Writes bytes unchanged: our own cursor movements, and output for programs. */
  raw(bytes: Uint8Array | string): void;
  /** Writes a program's output: on a terminal only text and colours, elsewhere unchanged. */
  program(bytes: Uint8Array | string): void;
  /** For --raw: foreign text is no longer filtered. */
  trust(): void;
  /** Prints a line for a waiting person; never part of the result. */
  note(line: string): void;
  /** For servers, daemons and moves: the command goes on if its output cannot be written. */
  outliveOutput(): void;
  /** Disposed at the end of the command: an open connection could keep the process alive. */
  open: DisposableStack;
  /** Sets the exit code for the end of the command. */
  setExitCode(code: number): void;
};

/** A narrower terminal breaks the lines: cut to its width, they would tell nothing. */
const columnsMin = 20;

/**
 * The process's own terminal. Colours follow NO_COLOR, FORCE_COLOR and whether standard output is a
 * terminal.
 */
export function processCli(env: Environment): Cli {
  const isTerminal = process.stdout.isTTY === true;
  let isTrusted = false;
  let outlivesOutput = false;
  // Notes are no part of the result: a command is not undone by a reader of notes that is gone.
  process.stderr.on("error", () => {});
  let isTold = false;
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (!outlivesOutput) endWithOutput(error);
    if (!isTold) process.stderr.write(`the output cannot be written (${error.code}); the command goes on\n`);
    isTold = true;
  });
  const output = new TerminalText();
  const line = (stream: NodeJS.WriteStream) => (text: string) =>
    void stream.write(`${stream.isTTY && !isTrusted ? forTerminal(text) : text}\n`);
  const wantsColor = env.FORCE_COLOR ? env.FORCE_COLOR !== "0" : isTerminal && env.TERM !== "dumb";
  return {
    env,
    colors: pc.createColors(wantsColor && !env.NO_COLOR),
    isTerminal,
    columns: isTerminal ? Math.max(columnsMin, process.stdout.columns || 100) : Number.POSITIVE_INFINITY,
    out: line(process.stdout),
    raw: (bytes) => void process.stdout.write(bytes),
    program: (bytes) => void process.stdout.write(isTerminal && !isTrusted ? output.take(bytes) : bytes),
    trust: () => {
      isTrusted = true;
    },
    note: line(process.stderr),
    outliveOutput: () => {
      outlivesOutput = true;
    },
    open: new DisposableStack(),
    setExitCode: (code) => {
      process.exitCode = code;
    },
  };
}

/**
 * Appends examples to a command's help. Each has a command line without the leading "pinion", and
 * its meaning.
 */
export function examples(command: Command, lines: [commandLine: string, meaning: string][]): Command {
  const name = rootOf(command).name();
  const width = Math.max(...lines.map(([line]) => line.length));
  const body = lines.map(([line, meaning]) =>
    (meaning ? `  $ ${name} ${line.padEnd(width)}   # ${meaning}` : `  $ ${name} ${line}`).trimEnd(),
  );
  return command.addHelpText("after", `\nExamples:\n${body.join("\n")}`);
}

function rootOf(command: Command): Command {
  return command.parent ? rootOf(command.parent) : command;
}

/**
 * A closed reader (`pinion runs list | head -1`) is no error, unless a command in progress sets an
 * exit code. On a full disk the command has failed.
 */
function endWithOutput(error: NodeJS.ErrnoException): void {
  if (error.code === "EPIPE") process.exit(process.exitCode ?? 0);
  process.stderr.write(`error: the output cannot be written: ${error.message}\n`);
  process.exit(exitCodes.failed);
}

/** Signals that ask for an orderly end; SIGHUP: the terminal was closed. */
type EndSignal = "SIGINT" | "SIGTERM" | "SIGHUP";

/**
 * The time in ms within which further signals belong to the first. A signal to the whole group
 * (systemd, timeout, a closed terminal) arrives twice: from the sender and from the parent that
 * passes it on.
 */
const oneSignalMs = 500;

/**
 * An AbortSignal fired by the first Ctrl-C, SIGTERM or SIGHUP; a later second one ends the process
 * at once. `except`: a signal with another meaning.
 */
export function interruptSignal({ except }: { except?: EndSignal } = {}): {
  signal: AbortSignal;
  dispose(): void;
} {
  const controller = new AbortController();
  const signals = (["SIGINT", "SIGTERM", "SIGHUP"] as const).filter((signal) => signal !== except);
  let interruptedAt = 0;
  const interrupt = () => {
    if (!controller.signal.aborted) {
      interruptedAt = performance.now();
      controller.abort();
    } else if (performance.now() - interruptedAt > oneSignalMs) process.exit(exitCodes.interrupted);
  };
  for (const signal of signals) process.on(signal, interrupt);
  return {
    signal: controller.signal,
    dispose: () => {
      for (const signal of signals) process.off(signal, interrupt);
    },
  };
}
