/**
 * The command `pinion` within the test's process: takes arguments, returns the output and the exit
 * code.
 */
import pc from "picocolors";
import type { Cli, Environment } from "../../src/cli/cli.ts";
import { main } from "../../src/cli/command-line.ts";

export type Ended = { code: number; out: string; err: string };

export function runCommand(env: Environment, ...args: string[]): Promise<Ended> {
  return watchCommand(env, () => {}, ...args);
}

/** The same, for a command that waits for somebody: `onNote` hears each line for people. */
export async function watchCommand(
  env: Environment,
  onNote: (line: string) => void,
  ...args: string[]
): Promise<Ended> {
  let [out, err, code] = ["", "", 0];
  const cli: Cli = {
    env,
    colors: pc.createColors(false),
    isTerminal: false,
    columns: Number.POSITIVE_INFINITY,
    out: (line) => {
      out += `${line}\n`;
    },
    raw: (bytes) => {
      out += typeof bytes === "string" ? bytes : Buffer.from(bytes).toString("utf8");
    },
    program: (bytes) => {
      out += typeof bytes === "string" ? bytes : Buffer.from(bytes).toString("utf8");
    },
    trust: () => {},
    outliveOutput: () => {},
    note: (line) => {
      err += `${line}\n`;
      onNote(line);
    },
    open: new DisposableStack(),
    setExitCode: (wanted) => {
      code = wanted;
    },
  };
  const ended = await main(cli, args);
  return { code: ended === 0 ? code : ended, out, err };
}
