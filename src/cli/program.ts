import { Command, Help } from "commander";
import { version } from "../version.ts";
import { type Cli, examples } from "./cli.ts";

/** A command of the first level. Its module, and all that the module imports, is loaded when the command is asked for. */
type Noun = {
  name: string;
  /** As in the module; a test compares the two. */
  description: string;
  load(): Promise<(program: Command, cli: Cli) => void>;
};

/** In the order of the help. */
const nouns: readonly Noun[] = [
  {
    name: "up",
    description: "start everything on this machine: database, server, this device, and a first run",
    load: async () => (await import("./commands/up.ts")).addUp,
  },
  {
    name: "serve",
    description: "run one replica of the server; any number may share one PostgreSQL",
    load: async () => (await import("./commands/serve.ts")).addServe,
  },
  {
    name: "device",
    description: "this machine as a device: enrol it, run its daemon, install it as a service",
    load: async () => (await import("./commands/device.ts")).addDevice,
  },
  {
    name: "worker",
    description:
      "run a fleet worker until Ctrl-C: it takes the org's runs that are pinned to no device, with a service's token",
    load: async () => (await import("./commands/worker.ts")).addWorker,
  },
  {
    name: "apply",
    description: "make agents, platforms and watchers what a file says; shows the plan first, and asks",
    load: async () => (await import("./apply/command.ts")).addApply,
  },
  {
    name: "pull",
    description: "write a file that describes the org's agents, platforms and watchers, for `pinion apply`",
    load: async () => (await import("./apply/pull.ts")).addPull,
  },
  {
    name: "agents",
    description: "who does the work: identity, model, tools, limits",
    load: async () => (await import("./commands/agents.ts")).addAgents,
  },
  {
    name: "platforms",
    description: "chat platforms that agents answer on",
    load: async () => (await import("./commands/platforms.ts")).addPlatforms,
  },
  {
    name: "watchers",
    description: "standing instructions: a prompt, a schedule, a device",
    load: async () => (await import("./commands/watchers.ts")).addWatchers,
  },
  {
    name: "destinations",
    description: "where results of watchers are sent",
    load: async () => (await import("./commands/destinations.ts")).addDestinations,
  },
  {
    name: "runs",
    description: "executions of watchers",
    load: async () => (await import("./commands/runs.ts")).addRuns,
  },
  {
    name: "windows",
    description: "the stored results of watchers",
    load: async () => (await import("./commands/windows.ts")).addWindows,
  },
  {
    name: "usage",
    description: "what runs used: tokens and cost, by the agents' own figures",
    load: async () => (await import("./commands/usage.ts")).addUsage,
  },
  {
    name: "turns",
    description: "messages to agents, and their replies",
    load: async () => (await import("./commands/turns.ts")).addTurns,
  },
  {
    name: "conversations",
    description: "what was said to agents, and what they remember of it",
    load: async () => (await import("./commands/conversations.ts")).addConversations,
  },
  {
    name: "devices",
    description: "the machines that runs are pinned to",
    load: async () => (await import("./commands/devices.ts")).addDevices,
  },
  {
    name: "tokens",
    description: "what people and services identify themselves with",
    load: async () => (await import("./commands/tokens.ts")).addTokens,
  },
  {
    name: "sign-ins",
    description: "browsers that are signed in to the web page",
    load: async () => (await import("./commands/sign-ins.ts")).addSignIns,
  },
  {
    name: "orgs",
    description: "orgs, and who belongs to them",
    load: async () => (await import("./commands/orgs.ts")).addOrgs,
  },
  {
    name: "events",
    description: "what happened, oldest first; with --follow also what happens",
    load: async () => (await import("./commands/events.ts")).addEvents,
  },
  {
    name: "doctor",
    description: "look at everything that is often wrong; exits with 1 if anything is",
    load: async () => (await import("./commands/doctor.ts")).addDoctor,
  },
  {
    name: "migrate",
    description: "bring a database to this version's schema; `up` and `serve` do so by themselves",
    load: async () => (await import("./commands/migrate.ts")).addMigrate,
  },
  {
    name: "secrets",
    description: "the keys under which secrets lie in the database",
    load: async () => (await import("./commands/secrets.ts")).addSecrets,
  },
  {
    name: "completion",
    description: "print what makes a shell complete commands, options, and names of things",
    load: async () => (await import("./commands/completion.ts")).addCompletion,
  },
];

/** The shells' completions may ask about every command. */
const needsAll = new Set(["complete"]);

/**
 * The command as far as a command line needs it: the commands that the line names are there whole, the others by name and
 * description. Parsing throws a CommanderError instead of ending the process.
 */
export async function createProgramFor(cli: Cli, args: readonly string[]): Promise<Command> {
  const program = createRoot(cli);
  const { operands } = withGlobalOptions(new Command()).parseOptions([...args]);
  // `pinion help runs` names the command after "help".
  const [first = ""] = operands[0] === "help" ? operands.slice(1) : operands;
  await addNouns(program, cli, (name) => needsAll.has(first) || name === first);
  return withExamples(program);
}

/** The whole command, with all of its options. */
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
  return withGlobalOptions(new Command("pinion"))
    .description(
      "Runs pinned to devices: what is due is pushed at once, and its result is stored exactly once.",
    )
    .version(version(), "-V, --version", "print the version")
    .helpOption("-h, --help", "show help")
    .hook("preAction", (_program, command) => {
      if (command.optsWithGlobals().raw) cli.trust();
    })
    .configureHelp({
      showGlobalOptions: true,
      helpWidth: Math.min(cli.columns, 110),
      // A command that is not loaded has no options to speak of.
      subcommandTerm: (command) =>
        command.parent?.parent ? new Help().subcommandTerm(command) : command.name(),
    })
    .exitOverride()
    .configureOutput({
      writeErr: (text) => cli.note(text.trimEnd()),
      writeOut: (text) => cli.out(text.trimEnd()),
    })
    .showHelpAfterError("(--help shows how it is used)");
}

function withGlobalOptions(command: Command): Command {
  return command
    .option(
      "--url <url>",
      "the server (PINION_URL; else the one of the data directory, else http://localhost:7420)",
    )
    .option(
      "--proxy <url>",
      'the proxy that leads to it, or "none" (else HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY say)',
    )
    .option("--token <token>", "who you are (PINION_TOKEN; else <data>/token, else ~/.config/pinion/token)")
    .option("--data <dir>", "where `up` and `serve` keep their state (PINION_DATA; ./.pinion)")
    .option("--json", "for programs: one JSON document, or one line each on streams")
    .option("--wide", "more columns")
    .option("--raw", "on a terminal too, what programs and people wrote as it came, escapes and all");
}

function withExamples(program: Command): Command {
  return examples(program, [
    ["up", "everything on this machine: database, server, this device, a first run"],
    ["watchers trigger daily-checkin --watch", "a run now, live"],
    ["runs explain <run>", "why a run is where it is"],
    ["doctor", "what is wrong, and what to do"],
  ]);
}
