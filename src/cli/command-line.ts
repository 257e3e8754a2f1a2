import { CommanderError } from "commander";
import type { Cli } from "./cli.ts";
import { serverUrl } from "./context.ts";
import { connectionTrouble } from "./doctor/connection-trouble.ts";
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
    const url = urlOf(cli, program.opts());
    return report(cli, (url && (await connectionTrouble(error, url))) || error, url);
  } finally {
    // A connection that breaks says so a moment after its call has failed, and must be heard by who still listens to it.
    await new Promise((done) => setImmediate(done));
    cli.open.dispose();
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
