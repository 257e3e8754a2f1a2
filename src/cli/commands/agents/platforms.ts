import type { Command } from "commander";
import {
  type AgentPlatform,
  AgentPlatformSchema,
  ListPlatformsResponseSchema,
  UpsertPlatformResponseSchema,
} from "#gen/pinion/v1/agent_pb.js";
import { readInputText } from "../../apply/file/read-input.ts";
import { type Cli, examples } from "../../cli.ts";
import { connect } from "../../context.ts";
import { exitCodes, Failure, told } from "../../failures.ts";
import { printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { wholeNumber } from "../../print/paging.ts";
import { type Column, plain } from "../../print/table.ts";
import { formatAgo } from "../../print/times.ts";
import * as words from "../../print/words.ts";

/** `pinion platforms …`: the agents' chat platforms. */
export function addPlatforms(program: Command, cli: Cli): void {
  const platforms = program.command("platforms").description("chat platforms that agents answer on");
  addList(platforms, cli);
  addUpsert(platforms, cli);
  addDelete(platforms, cli);
  addStart(platforms, cli);
  addStop(platforms, cli);
}

function addList(platforms: Command, cli: Cli): void {
  const command = platforms
    .command("list")
    .alias("ls")
    .description("list the platforms, by stable id, never their secrets")
    .option("--agent <agent>", "only this agent's")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 200)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{ agent?: string; limit: number }>(cli, command);
      await printList(cli, options, {
        schema: ListPlatformsResponseSchema,
        field: "platforms",
        read: (request) => clients.agents.listPlatforms({ agentId: options.agent ?? "", ...request }),
        none: "no platforms; `pinion platforms upsert --help` shows how to make one",
        columns: platformColumns(cli),
      });
    });
  examples(command, [
    ["platforms list", "all of them"],
    ["platforms list --agent reviewer", "of one agent"],
  ]);
}

function platformColumns(cli: Cli): Column<AgentPlatform>[] {
  return [
    { header: "ID", cell: (platform) => platform.stableId },
    { header: "AGENT", cell: (platform) => platform.agentId },
    { header: "KIND", cell: (platform) => platform.kind },
    {
      header: "STATE",
      cell: (platform) => words.paintState(cli, words.platformStatus.word(platform.status)),
    },
    { header: "VERSION", cell: (platform) => String(platform.version), align: "right" },
    { header: "UPDATED", cell: (platform) => formatAgo(platform.updatedAt) },
    { header: "LAST IN", cell: (platform) => formatAgo(platform.lastMessageInAt) },
    { header: "LAST OUT", cell: (platform) => formatAgo(platform.lastMessageOutAt) },
    { header: "WHY", cell: (platform) => plain(whyOf(platform)), isFlexible: true },
  ];
}

/** Why the platform does not run, or else its last trouble. */
function whyOf({ statusReason, lastError, lastErrorAt }: AgentPlatform): string {
  if (statusReason !== "" || lastError === "") return statusReason;
  return `${formatAgo(lastErrorAt)}: ${lastError}`;
}

type UpsertOptions = {
  agent: string;
  kind: string;
  config?: Record<string, string>;
  secretEnv?: Record<string, string>;
  secretFile?: Record<string, string>;
  secretRef?: Record<string, string>;
  secretKeep?: string[];
  dryRun?: boolean;
};

function addUpsert(platforms: Command, cli: Cli): void {
  const command = platforms
    .command("upsert")
    .argument("<platform>", 'its stable id: a-z, 0-9 and "-", up to 100')
    .description("make a platform what the options say, and start it; what is left out is cleared")
    .requiredOption("--agent <agent>", "the agent that answers there")
    .requiredOption(
      "--kind <kind>",
      "telegram, slack, discord, whatsapp, teams, github, gchat, linear or webhook",
    )
    .option("--config <key=value>", "a value; may be repeated", pair)
    // Secrets on a command line would be visible in the shell's history and the process list.
    .option("--secret-env <key=VARIABLE>", "a secret, from this environment variable; may be repeated", pair)
    .option("--secret-file <key=file>", 'a secret, from a file; "-" reads standard input', pair)
    .option("--secret-ref <key=NAME>", "a secret that the server has as PINION_SECRET_<NAME>", pair)
    .option(
      "--secret-keep <key>",
      "a secret that stays what it is; may be repeated",
      (key: string, before?: string[]) => [...(before ?? []), key],
    )
    .option("--dry-run", "say what would change, and change nothing")
    .action(async (stableId: string, _options, command: Command) => {
      const { clients, options } = connect<UpsertOptions>(cli, command);
      const answer = await clients.agents.upsertPlatform({
        stableId,
        agentId: options.agent,
        kind: options.kind,
        config: options.config ?? {},
        secrets: secretsOf(cli, options),
        dryRun: options.dryRun ?? false,
      });
      if (options.json) return printJson(cli, UpsertPlatformResponseSchema, answer);
      const outcome = words.upsertOutcome.word(answer.outcome);
      const status = words.platformStatus.word(told(answer.platform, "platform").status);
      const what = answer.changedFields.length > 0 ? ` (${answer.changedFields.join(", ")})` : "";
      if (options.dryRun) {
        return cli.out(
          `${stableId}: would be ${outcome}${what}${answer.willRestart ? ", and restarted" : ""}`,
        );
      }
      cli.out(`${stableId}: ${outcome}${what}${answer.willRestart ? ", restarted" : ""}; ${status}`);
    });
  examples(command, [
    [
      "platforms upsert team-chat --agent reviewer --kind telegram --secret-env bot_token=BOT_TOKEN --config allow_from=123456789",
      "for one person",
    ],
    [
      "platforms upsert team-chat --agent reviewer --kind telegram --secret-ref bot_token=TEAM_BOT",
      "PINION_SECRET_TEAM_BOT",
    ],
  ]);
}

function pair(text: string, before: Record<string, string> | undefined): Record<string, string> {
  const [, key, value] = /^([^=]+)=(.*)$/s.exec(text) ?? [];
  if (key === undefined || value === undefined)
    throw new Failure(exitCodes.usage, `"${text}": write key=value`);
  return { ...before, [key]: value };
}

type SecretInit = { kind: { case: "value"; value: string } | { case: "keep"; value: true } };

function secretsOf(cli: Cli, options: UpsertOptions): Record<string, SecretInit> {
  const secrets: Record<string, SecretInit> = {};
  const set = (key: string, value: string) => {
    secrets[key] = { kind: { case: "value", value } };
  };
  const missing: string[] = [];
  for (const [key, name] of Object.entries(options.secretEnv ?? {})) {
    const value = cli.env[name];
    if (value) set(key, value);
    else missing.push(name);
  }
  if (missing.length > 0) throw new Failure(exitCodes.usage, `not set: ${missing.join(", ")}`);
  for (const [key, file] of Object.entries(options.secretFile ?? {})) {
    set(key, readInputText(file).trimEnd());
  }
  for (const [key, name] of Object.entries(options.secretRef ?? {})) set(key, `secret://${name}`);
  for (const key of options.secretKeep ?? []) secrets[key] = { kind: { case: "keep", value: true } };
  return secrets;
}

function addDelete(platforms: Command, cli: Cli): void {
  const command = platforms
    .command("delete")
    .argument("<platform>", "its stable id")
    .description("stop and remove a platform")
    .action(async (stableId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      await clients.agents.deletePlatform({ stableId });
      if (options.json) return cli.out(JSON.stringify({ deleted: stableId }));
      cli.out(`${stableId} is deleted`);
    });
  examples(command, [["platforms delete team-chat", ""]]);
}

function addStart(platforms: Command, cli: Cli): void {
  const command = platforms
    .command("start")
    .argument("<platform>", "its stable id")
    .description("start a platform, and wait until it runs")
    .action(async (stableId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const platform = told((await clients.agents.startPlatform({ stableId })).platform, "platform");
      if (options.json) return printJson(cli, AgentPlatformSchema, platform);
      cli.out(`${stableId} is ${words.platformStatus.word(platform.status)}`);
    });
  examples(command, [["platforms start team-chat", ""]]);
}

function addStop(platforms: Command, cli: Cli): void {
  const command = platforms
    .command("stop")
    .argument("<platform>", "its stable id")
    .description("stop a platform until it is started again")
    .action(async (stableId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const platform = told((await clients.agents.stopPlatform({ stableId })).platform, "platform");
      if (options.json) return printJson(cli, AgentPlatformSchema, platform);
      cli.out(`${stableId} is ${words.platformStatus.word(platform.status)}`);
    });
  examples(command, [["platforms stop team-chat", ""]]);
}
