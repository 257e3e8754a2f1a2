import { CommanderError } from "commander";
import type { Cli } from "./cli.ts";
import { exitCodes } from "./exit-codes.ts";
import type { Explained } from "./failures.ts";
import { createProgramFor, usageAdvice } from "./program.ts";

/** Runs one command line and resolves to the exit code. Prints errors; never throws. */
export async function main(cli: Cli, args: readonly string[]): Promise<number> {
  const asJson = asksForJson(args);
  const program = await createProgramFor(cli, args);
  const said: string[] = [];
  // With --json the error is a line of JSON, with commander's text as the message.
  if (asJson) {
    for (const command of withDescendants(program)) {
      command.configureOutput({ writeErr: (text) => void said.push(text.trimEnd()) });
    }
  }
  try {
    await program.parseAsync(args, { from: "user" });
    return exitCodes.ok;
  } catch (error) {
    if (error instanceof CommanderError) {
      // Help and version are errors with code 0; commander has printed the text.
      const isHelp = error.exitCode === 0 || error.code === "commander.help";
      if (isHelp) for (const text of said) cli.note(text);
      else if (asJson) {
        const message = error.message.replace(/^error: /, "");
        tellAsJson(cli, { message, advice: usageAdvice, exitCode: exitCodes.usage });
      }
      return isHelp ? exitCodes.ok : exitCodes.usage;
    }
    return report(cli, await explained(cli, error, program.opts()), { error, asJson });
  } finally {
    // A broken connection emits its error shortly after the failed call; the error needs its
    // listener until then.
    await new Promise((done) => setImmediate(done));
    cli.open.dispose();
  }
}

/** True if a command line has --json, even an invalid command line. */
function asksForJson(args: readonly string[]): boolean {
  const end = args.indexOf("--");
  return (end < 0 ? args : args.slice(0, end)).includes("--json");
}

function withDescendants<C extends { commands: readonly C[] }>(command: C): C[] {
  return [command, ...command.commands.flatMap(withDescendants)];
}

/** Explaining an error needs the clients and the protocol, loaded only by a failing command. */
async function explained(cli: Cli, error: unknown, options: object): Promise<Explained> {
  const [{ explain }, { serverUrl }, { connectionTrouble }] = await Promise.all([
    import("./failures.ts"),
    import("./context.ts"),
    import("./doctor/connection-trouble.ts"),
  ]);
  let url: string | undefined;
  try {
    url = serverUrl(options, cli.env);
  } catch {
    // The setting of the server's URL is itself the error.
  }
  return explain((url && (await connectionTrouble(error, url))) || error, url);
}

function report(cli: Cli, told: Explained, { error, asJson }: { error: unknown; asJson: boolean }): number {
  if (asJson) tellAsJson(cli, told);
  else {
    cli.note(`${cli.colors.red("error:")} ${told.message}`);
    if (told.advice) cli.note(`${cli.colors.dim("  →")} ${told.advice}`);
  }
  if (cli.env.PINION_DEBUG && error instanceof Error) cli.note(error.stack ?? "");
  return told.exitCode;
}

function tellAsJson(cli: Cli, { message, advice, exitCode }: Explained): void {
  cli.note(JSON.stringify({ error: message, advice: advice ?? "", exit_code: exitCode }));
}
