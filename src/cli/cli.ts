import type { Command } from "commander";
import pc from "picocolors";

/** The process's environment, as `environment()` of src/config.ts reads it. */
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
  /** Bytes of a program's output, as they came. */
  raw(bytes: Uint8Array | string): void;
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
  const wantsColor = env.FORCE_COLOR ? env.FORCE_COLOR !== "0" : isTerminal && env.TERM !== "dumb";
  return {
    env,
    colors: pc.createColors(wantsColor && !env.NO_COLOR),
    isTerminal,
    columns: isTerminal ? process.stdout.columns || 100 : Number.POSITIVE_INFINITY,
    out: (line) => process.stdout.write(`${line}\n`),
    raw: (bytes) => process.stdout.write(bytes),
    note: (line) => process.stderr.write(`${line}\n`),
    open: new DisposableStack(),
    setExitCode: (code) => {
      process.exitCode = code;
    },
  };
}

/** Appends examples to a command's help. Each is a command line without the leading "pinion", and what it does. */
export function examples(command: Command, lines: [commandLine: string, meaning: string][]): Command {
  const width = Math.max(...lines.map(([line]) => line.length));
  const body = lines.map(([line, meaning]) =>
    (meaning ? `  $ pinion ${line.padEnd(width)}   # ${meaning}` : `  $ pinion ${line}`).trimEnd(),
  );
  return command.addHelpText("after", `\nExamples:\n${body.join("\n")}`);
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
