import { Command } from "commander";
import { version } from "../version.ts";
import { addApply } from "./apply/command.ts";
import { addPull } from "./apply/pull.ts";
import { type Cli, examples } from "./cli.ts";
import { addAgents } from "./commands/agents.ts";
import { addCompletion } from "./commands/completion.ts";
import { addConversations } from "./commands/conversations.ts";
import { addDestinations } from "./commands/destinations.ts";
import { addDevice } from "./commands/device.ts";
import { addDevices } from "./commands/devices.ts";
import { addDoctor } from "./commands/doctor.ts";
import { addEvents } from "./commands/events.ts";
import { addMigrate } from "./commands/migrate.ts";
import { addOrgs } from "./commands/orgs.ts";
import { addPlatforms } from "./commands/platforms.ts";
import { addRuns } from "./commands/runs.ts";
import { addSecrets } from "./commands/secrets.ts";
import { addServe } from "./commands/serve.ts";
import { addTokens } from "./commands/tokens.ts";
import { addTurns } from "./commands/turns.ts";
import { addUp } from "./commands/up.ts";
import { addUsage } from "./commands/usage.ts";
import { addWatchers } from "./commands/watchers.ts";
import { addWindows } from "./commands/windows.ts";
import { addWorker } from "./commands/worker.ts";

/** The whole command. Parsing throws a CommanderError instead of ending the process. */
export function createProgram(cli: Cli): Command {
  const program = new Command("pinion")
    .description(
      "Runs pinned to devices: what is due is pushed at once, and its result is stored exactly once.",
    )
    .version(version(), "-V, --version", "print the version")
    .helpOption("-h, --help", "show help")
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
    .option("--raw", "on a terminal too, what programs and people wrote as it came, escapes and all")
    .hook("preAction", (_program, command) => {
      if (command.optsWithGlobals().raw) cli.trust();
    })
    .configureHelp({ showGlobalOptions: true, helpWidth: Math.min(cli.columns, 110) })
    .exitOverride()
    .configureOutput({
      writeErr: (text) => cli.note(text.trimEnd()),
      writeOut: (text) => cli.out(text.trimEnd()),
    })
    .showHelpAfterError("(--help shows how it is used)");
  addUp(program, cli);
  addServe(program, cli);
  addDevice(program, cli);
  addWorker(program, cli);
  addApply(program, cli);
  addPull(program, cli);
  addAgents(program, cli);
  addPlatforms(program, cli);
  addWatchers(program, cli);
  addDestinations(program, cli);
  addRuns(program, cli);
  addWindows(program, cli);
  addUsage(program, cli);
  addTurns(program, cli);
  addConversations(program, cli);
  addDevices(program, cli);
  addTokens(program, cli);
  addOrgs(program, cli);
  addEvents(program, cli);
  addDoctor(program, cli);
  addMigrate(program, cli);
  addSecrets(program, cli);
  addCompletion(program, cli);
  return examples(program, [
    ["up", "everything on this machine: database, server, this device, a first run"],
    ["watchers trigger daily-checkin --watch", "a run now, live"],
    ["runs explain <run>", "why a run is where it is"],
    ["doctor", "what is wrong, and what to do"],
  ]);
}
