#!/usr/bin/env node
/** The command `pinion`. Exit codes are in failures.ts. */
import { CommanderError } from "commander";
import { environment } from "../config.ts";
import { type Cli, processCli } from "./cli.ts";
import { serverUrl } from "./context.ts";
import { exitCodes, explain } from "./failures.ts";
import { createProgram } from "./program.ts";

/** Runs one command line and resolves to the code to exit with. Says what went wrong; never throws. */
export async function main(cli: Cli, args: readonly string[]): Promise<number> {
  const program = createProgram(cli);
  try {
    await program.parseAsync(args, { from: "user" });
    return exitCodes.ok;
  } catch (error) {
    if (error instanceof CommanderError) {
      // Help and version come as errors with code 0; commander has said the rest.
      return error.exitCode === 0 || error.code === "commander.help" ? exitCodes.ok : exitCodes.usage;
    }
    return report(cli, error, urlOf(cli, program.opts()));
  }
}

function report(cli: Cli, error: unknown, url: string | undefined): number {
  const { message, advice, exitCode } = explain(error, url);
  cli.note(`${cli.colors.red("error:")} ${message}`);
  if (advice) cli.note(`${cli.colors.dim("  →")} ${advice}`);
  if (cli.env.PINION_DEBUG && error instanceof Error) cli.note(error.stack ?? "");
  return exitCode;
}

/** The server that was asked, for messages; undefined if what names it is itself at fault. */
function urlOf(cli: Cli, options: Parameters<typeof serverUrl>[0]): string | undefined {
  try {
    return serverUrl(options, cli.env);
  } catch {
    return undefined;
  }
}

// A reader that has enough (`pinion runs list | head -1`) is no error.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(exitCodes.ok);
  throw error;
});

const code = await main(processCli(environment()), process.argv.slice(2));
// Not process.exit: what is still to be written to a pipe would be lost.
if (code !== exitCodes.ok) process.exitCode = code;
