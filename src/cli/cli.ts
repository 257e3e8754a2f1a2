import type { Command } from "commander";
import pc from "picocolors";
import { forTerminal, TerminalText } from "./print/terminal.ts";

/** The process's environment, as `environment()` of src/environment.ts reads it. */
export type Environment = Record<string, string | undefined>;

type Colors = ReturnType<typeof pc.createColors>;

/** What a command has of the world around it: the environment, and where people and programs read. */
export type Cli = {
  env: Environment;
  colors: Colors;
  /** Standard output is a terminal: columns may be cut, lines may be redrawn. */
  isTerminal: boolean;
  /** Width of the terminal in characters; unbounded when there is none. */
  columns: number;
  /** A line for whoever reads the result. */
  out(line: string): void;
  /** Bytes as they are: our own movements of the cursor, and what is for programs. */
  raw(bytes: Uint8Array | string): void;
  /** What a program printed: on a terminal only its text and its colours, elsewhere as it came. */
  program(bytes: Uint8Array | string): void;
  /** --raw was given: from now on nothing is taken out of what others wrote. */
  trust(): void;
  /** A line for the person who waits; never part of the result. */
  note(line: string): void;
  /** Closed when the command is through: a connection left open could keep the process from ending. */
  open: DisposableStack;
  /** Ends the process with this code once the command is through. */
  setExitCode(code: number): void;
};

/** The process's own terminal. Colours follow NO_COLOR, FORCE_COLOR and whether somebody is there to see them. */
export function processCli(env: Environment): Cli {
  const isTerminal = process.stdout.isTTY === true;
  let isTrusted = false;
  const output = new TerminalText();
  const line = (stream: NodeJS.WriteStream) => (text: string) =>
    void stream.write(`${stream.isTTY && !isTrusted ? forTerminal(text) : text}\n`);
  const wantsColor = env.FORCE_COLOR ? env.FORCE_COLOR !== "0" : isTerminal && env.TERM !== "dumb";
  return {
    env,
    colors: pc.createColors(wantsColor && !env.NO_COLOR),
    isTerminal,
    columns: isTerminal ? process.stdout.columns || 100 : Number.POSITIVE_INFINITY,
    out: line(process.stdout),
    raw: (bytes) => void process.stdout.write(bytes),
    program: (bytes) => void process.stdout.write(isTerminal && !isTrusted ? output.take(bytes) : bytes),
    trust: () => {
      isTrusted = true;
    },
    note: line(process.stderr),
    open: new DisposableStack(),
    setExitCode: (code) => {
      process.exitCode = code;
    },
  };
}

/** Appends examples to a command's help. Each is a command line without the leading "pinion", and what it does. */
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

/** An AbortSignal that the first Ctrl-C or SIGTERM fires; a second one ends the process at once. */
export function interruptSignal(): { signal: AbortSignal; dispose(): void } {
  const controller = new AbortController();
  const interrupt = () => {
    if (controller.signal.aborted) process.exit(130);
    controller.abort();
  };
  process.on("SIGINT", interrupt);
  process.on("SIGTERM", interrupt);
  return {
    signal: controller.signal,
    dispose: () => {
      process.off("SIGINT", interrupt);
      process.off("SIGTERM", interrupt);
    },
  };
}
