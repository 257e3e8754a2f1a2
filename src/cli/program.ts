import { Command, Help } from "commander";
import { build } from "../build.ts";
import { type Cli, examples } from "./cli.ts";
import { nouns } from "./commands/nouns.ts";

/** Completions need every command. */
const needsAll = new Set(["complete"]);

/** What to do after a mistake in the use of a command. */
export const usageAdvice = "the command with --help shows its arguments and options";

/**
 * The program for a command line: the commands in the line are loaded whole, the others have only
 * name and description. Parsing throws a CommanderError instead of ending the process.
 */
export async function createProgramFor(cli: Cli, args: readonly string[]): Promise<Command> {
  const program = createRoot(cli);
  const { operands } = withGlobalOptions(new Command()).parseOptions([...args]);
  // `pinion help runs` names the command after "help".
  const [first = ""] = operands[0] === "help" ? operands.slice(1) : operands;
  await addNouns(program, cli, (name) => needsAll.has(first) || name === first);
  return withExamples(program);
}

/** The whole program, with all options. */
export async function createProgram(cli: Cli): Promise<Command> {
  const program = createRoot(cli);
  await addNouns(program, cli, () => true);
  return withExamples(program);
}

async function addNouns(program: Command, cli: Cli, isWanted: (name: string) => boolean): Promise<void> {
  const added = await Promise.all(
    nouns.map(({ name, load }) => (isWanted(name) ? load() : Promise.resolve(undefined))),
  );
  for (const [index, { name, description }] of nouns.entries()) {
    const add = added[index];
    if (add) add(program, cli);
    else program.command(name).description(description);
  }
}

function createRoot(cli: Cli): Command {
  return withGlobalOptions(new Command(build.program))
    .description(
      "Runs pinned to devices: what is due is pushed at once, and its result is stored exactly once.",
    )
    .version(build.version, "-V, --version", "print the version")
    .helpOption("-h, --help", "show help")
    .hook("preAction", (_program, command) => {
      if (command.optsWithGlobals().raw) cli.trust();
    })
    .configureHelp({
      showGlobalOptions: true,
      helpWidth: Math.min(cli.columns, 110),
      // A command not loaded has no known options.
      subcommandTerm: (command) =>
        command.parent?.parent ? new Help().subcommandTerm(command) : command.name(),
    })
    .exitOverride()
    .configureOutput({
      writeErr: (text) => cli.note(text.trimEnd()),
      writeOut: (text) => cli.out(text.trimEnd()),
    })
    .showHelpAfterError(`(${usageAdvice})`);
}

function withGlobalOptions(command: Command): Command {
  return command
    .option(
      "--url <url>",
      "address of the server (PINION_URL; else the server of the data directory, else http://localhost:7420)",
    )
    .option(
      "--proxy <url>",
      'proxy on the way to the server, or "none" (else from HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY)',
    )
    .option(
      "--token <token>",
      "the caller's token (PINION_TOKEN; else <data>/token, else ~/.config/pinion/token)",
    )
    .option(
      "--context <name>",
      "a server of `pinion login` (PINION_CONTEXT; else the context of the directory, else the current context)",
    )
    .option("--data <dir>", "where `up` and `serve` keep their state (PINION_DATA; ./.pinion)")
    .option("--json", "output for programs: one JSON document; a stream prints one JSON object a line")
    .option("--wide", "more columns in tables")
    .option(
      "--raw",
      "print the text of programs and people unchanged on a terminal too, with escape sequences",
    );
}

function withExamples(program: Command): Command {
  if (build.program === "piniond") {
    return examples(program, [
      [
        "enroll --url https://pinion.example.org --join-code ABCD-EFGH-JKMN-PQRS",
        "this machine becomes a device",
      ],
      ["", "its daemon, until Ctrl-C: the same as `device run`"],
      ["install", "has it start by itself"],
    ]);
  }
  return examples(program, [
    ["up", "everything on this machine: database, server, this device, a first run"],
    ["watchers trigger daily-checkin --watch", "a run now, live"],
    ["runs explain <run>", "why a run is where it is"],
    ["doctor", "what is wrong, and what to do"],
  ]);
}
