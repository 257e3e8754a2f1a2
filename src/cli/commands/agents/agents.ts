import { create, fromJson, type JsonValue } from "@bufbuild/protobuf";
import type { Command } from "commander";
import {
  type Agent,
  AgentSchema,
  type AgentSettings,
  AgentSettingsSchema,
  ListAgentsResponseSchema,
} from "#gen/pinion/v1/agent_pb.js";
import { readInputText } from "../../apply/file/read-input.ts";
import { type Cli, examples } from "../../cli.ts";
import { connect } from "../../context.ts";
import { exitCodes, Failure, told } from "../../failures.ts";
import { deviceId } from "../../lookup.ts";
import { printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { list, wholeNumber } from "../../print/paging.ts";
import { type Column, details, plain, plainLines } from "../../print/table.ts";
import { formatAgo, formatMomentAgo } from "../../print/times.ts";
import { addAgentVersions } from "../watchers/versions.ts";

/** `pinion agents …`: named configurations of the agents of watchers. */
export function addAgents(program: Command, cli: Cli): void {
  const agents = program.command("agents").description("who does the work: identity, model, tools, limits");
  addList(agents, cli);
  addGet(agents, cli);
  addCreate(agents, cli);
  addUpdate(agents, cli);
  addDelete(agents, cli);
  addAgentVersions(agents, cli);
}

function addList(agents: Command, cli: Cli): void {
  const command = agents
    .command("list")
    .alias("ls")
    .description("list the agents, by id")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 200)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{ limit: number }>(cli, command);
      await printList(cli, options, {
        schema: ListAgentsResponseSchema,
        field: "agents",
        read: (request) => clients.agents.listAgents(request),
        none: "no agents; `pinion agents create --help` shows how to make one",
        columns: agentColumns(cli),
      });
    });
  examples(command, [["agents list", "all of them"]]);
}

function agentColumns(cli: Cli): Column<Agent>[] {
  return [
    { header: "ID", cell: (agent) => agent.id },
    { header: "NAME", cell: (agent) => plain(agent.name), isFlexible: true },
    { header: "MODEL", cell: (agent) => plain(agent.settings?.model ?? "") },
    { header: "VERSION", cell: (agent) => String(agent.version), align: "right" },
    { header: "DEFAULT", cell: (agent) => (agent.isDefault ? cli.colors.green("yes") : "") },
    { header: "UPDATED", cell: (agent) => formatAgo(agent.updatedAt) },
  ];
}

function addGet(agents: Command, cli: Cli): void {
  const command = agents
    .command("get")
    .argument("[agent]", "its id; without one the org's default")
    .description("everything about one agent")
    .action(async (agentId: string | undefined, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const agent = told((await clients.agents.getAgent({ agentId: agentId ?? "" })).agent, "agent");
      if (options.json) return printJson(cli, AgentSchema, agent);
      printAgent(cli, agent);
    });
  examples(command, [["agents get pinion-default", "with its identity"]]);
}

function printAgent(cli: Cli, agent: Agent): void {
  const settings = agent.settings ?? create(AgentSettingsSchema);
  const egress = settings.egressConfig;
  const lines = details(
    [
      ["id", agent.id],
      ["name", plain(agent.name)],
      ["version", String(agent.version)],
      ["default", agent.isDefault ? "yes" : ""],
      ["owner", agent.ownerId],
      [
        "turns go to",
        agent.noExecutorReason
          ? `nobody: ${plain(agent.noExecutorReason)}; pin it anew with: pinion agents update ${agent.id} --device …`
          : agent.deviceId
            ? `device ${agent.deviceId}`
            : "",
      ],
      ["model", plain(settings.model)],
      ["MCP servers", settings.mcpServers.map((server) => plain(`${server.name} ${server.url}`)).join(", ")],
      ["providers", settings.installedProviders.map(plain).join(", ")],
      ["may connect to", egress ? egress.allowedHosts.map(plain).join(", ") || "no host" : "any host"],
      ["needs no asking", settings.preApprovedTools.map(plain).join(", ")],
      ["updated", formatMomentAgo(agent.updatedAt)],
    ],
    cli.colors.dim,
  );
  for (const line of lines) {
    cli.out(line);
  }
  if (settings.identity) cli.out(`\n${plainLines(settings.identity)}`);
  for (const guardrail of settings.guardrails) cli.out(`- ${plain(guardrail)}`);
}

/** Options of `agents create` and `agents update`; each sets a field of the settings. */
type SettingsOptions = {
  identity?: string;
  identityFile?: string;
  model?: string;
  provider?: string[];
  host?: string[];
  anyHost?: boolean;
  tool?: string[];
  guardrail?: string[];
  mcp?: string[];
  settings?: string;
};

function addSettingsOptions(command: Command): Command {
  return command
    .option("--name <text>", "shown to people")
    .option("--identity <text>", "the system prompt")
    .option("--identity-file <file>", 'the same from a file; "-" reads standard input')
    .option("--model <name>", "as its provider spells it")
    .option("--provider <name>", "an installed provider; several with commas or repeated", list)
    .option("--host <host>", 'a host that it may connect to; "" alone: no host', list)
    .option("--any-host", "no limit on where it may connect to")
    .option("--tool <name>", "a tool that needs no confirmation; several with commas or repeated", list)
    .option("--guardrail <text>", "a sentence that is always in force; may be repeated", repeat)
    .option("--mcp <name=url>", "an MCP server; may be repeated", repeat)
    .option(
      "--settings <file>",
      'all settings as JSON instead, as `agents get --json` shows them; "-" reads standard input',
    );
}

function repeat(text: string, before: string[] | undefined): string[] {
  return [...(before ?? []), text].filter((part) => part !== "");
}

/** The settings from the options, and their names for an update mask. */
function settingsOf(options: SettingsOptions): { settings: AgentSettings; paths: string[] } {
  if (options.settings !== undefined) return { settings: settingsFrom(options.settings), paths: ["*"] };
  const settings = create(AgentSettingsSchema);
  const paths: string[] = [];
  const set = <Option>(option: Option | undefined, path: string, assign: (option: Option) => void) => {
    if (option === undefined) return;
    assign(option);
    paths.push(path);
  };
  set(
    options.identity ?? (options.identityFile && readInputText(options.identityFile)),
    "identity",
    (identity) => {
      settings.identity = identity;
    },
  );
  set(options.model, "model", (model) => {
    settings.model = model;
  });
  set(options.provider, "installed_providers", (providers) => {
    settings.installedProviders = providers;
  });
  set(options.host ?? (options.anyHost ? null : undefined), "egress_config", (hosts) => {
    if (hosts) settings.egressConfig = { $typeName: "pinion.v1.EgressConfig", allowedHosts: hosts };
  });
  set(options.tool, "pre_approved_tools", (tools) => {
    settings.preApprovedTools = tools;
  });
  set(options.guardrail, "guardrails", (guardrails) => {
    settings.guardrails = guardrails;
  });
  set(options.mcp, "mcp_servers", (servers) => {
    settings.mcpServers = servers.map((server) => {
      const [, name = "", url = ""] =
        /^([^=]+)=(.*)$/.exec(server) ?? usage(`--mcp ${server}: write name=url`);
      return { $typeName: "pinion.v1.McpServer", name, url, isInjected: false };
    });
  });
  return { settings, paths };
}

function usage(message: string): never {
  throw new Failure(exitCodes.usage, message);
}

function settingsFrom(file: string): AgentSettings {
  try {
    const json = JSON.parse(readInputText(file)) as { settings?: JsonValue };
    return fromJson(AgentSettingsSchema, json.settings ?? (json as JsonValue));
  } catch (error) {
    return usage(`--settings ${file}: ${error instanceof Error ? error.message : error}`);
  }
}

function addCreate(agents: Command, cli: Cli): void {
  const command = agents
    .command("create")
    .argument("<agent>", 'its id: a-z, 0-9 and "-", up to 63')
    .description("make an agent; one of that id that is there already stays as it is")
    .action(async (agentId: string, _options, command: Command) => {
      const { clients, options } = connect<SettingsOptions & { name?: string }>(cli, command);
      const answer = await clients.agents.createAgent({
        agentId,
        name: options.name ?? "",
        settings: settingsOf(options).settings,
      });
      if (options.json) return printJson(cli, AgentSchema, told(answer.agent, "agent"));
      if (answer.created) return cli.out(`${agentId} is created`);
      cli.out(
        `${agentId} was there already, at version ${told(answer.agent, "agent").version}; nothing changed`,
      );
    });
  addSettingsOptions(command);
  examples(command, [['agents create reviewer --identity "You review code." --model opus', ""]]);
}

function addUpdate(agents: Command, cli: Cli): void {
  const command = agents
    .command("update")
    .argument("<agent>", "its id")
    .description("change what is named, and nothing else; runs that exist keep what they have")
    .option("--default", "make it the org's default")
    .option("--device <device>", 'pin its turns to a device (id or label); "" gives them to the fleet')
    .option("--expected-version <n>", "only if this is still its version", wholeNumber(1, 2 ** 31 - 1))
    .option("--dry-run", "say what would change, and change nothing")
    .action(async (agentId: string, _options, command: Command) => {
      const { clients, options } = connect<
        SettingsOptions & {
          name?: string;
          default?: boolean;
          device?: string;
          expectedVersion?: number;
          dryRun?: boolean;
        }
      >(cli, command);
      const { settings, paths } = settingsOf(options);
      if (
        paths.length === 0 &&
        options.name === undefined &&
        options.device === undefined &&
        !options.default
      ) {
        throw new Failure(
          exitCodes.usage,
          "nothing to change",
          "name what to change, for example --model; see --help",
        );
      }
      const answer = await clients.agents.updateAgentSettings({
        agentId,
        settings,
        updateMask: { paths },
        ...(options.name === undefined ? {} : { name: options.name }),
        ...(options.default ? { isDefault: true } : {}),
        ...(options.device === undefined
          ? {}
          : { deviceId: options.device && (await deviceId(clients, options.device)) }),
        expectedVersion: options.expectedVersion ?? 0,
        dryRun: options.dryRun ?? false,
      });
      if (options.json) return printJson(cli, AgentSchema, told(answer.agent, "agent"));
      if (answer.changedFields.length === 0) return cli.out(`${agentId}: nothing to change`);
      const verb = options.dryRun ? "would change" : "changed";
      cli.out(
        `${agentId}: ${verb} ${answer.changedFields.join(", ")}; version ${told(answer.agent, "agent").version}`,
      );
    });
  addSettingsOptions(command);
  examples(command, [
    ["agents update reviewer --model opus", "a new version of it"],
    ["agents update reviewer --default", "what is meant where none is named"],
    ['agents update reviewer --host ""', "it may connect to no host"],
  ]);
}

function addDelete(agents: Command, cli: Cli): void {
  const command = agents
    .command("delete")
    .argument("<agent>", "its id")
    .description("remove an agent and its platforms; its watchers skip until an agent of that id is back")
    .action(async (agentId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      await clients.agents.deleteAgent({ agentId });
      if (options.json) return cli.out(JSON.stringify({ deleted: agentId }));
      cli.out(`${agentId} is deleted`);
    });
  examples(command, [["agents delete reviewer", ""]]);
}
