import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { SummarizeUsageResponseSchema, UsageGroup, type UsageSum } from "#gen/pinion/v1/run_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { type Clients, connect } from "../../context.ts";
import { deviceId, deviceLabels } from "../../lookup.ts";
import { formatCost } from "../../print/budget.ts";
import { printJson } from "../../print/json.ts";
import { type Column, plain, table } from "../../print/table.ts";
import { parseLength } from "../../print/times.ts";
import * as words from "../../print/words.ts";

/** `pinion usage`: the agents' use, by their own figures. */
export function addUsage(program: Command, cli: Cli): void {
  const command = program
    .command("usage")
    .description("what runs used: tokens and cost, by the agents' own figures")
    .option("--by <group>", `a sum for each ${words.usageGroup.all.join(", ")}`, "watcher")
    .option("--since <length>", "how far back, in whole days", "30d")
    .option("--watcher <watcher>", "only this watcher's runs (id or slug)")
    .option("--agent <agent>", "only this agent's")
    .option("--device <device>", "only those on this device (id or label)")
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{
        by: string;
        since: string;
        watcher?: string;
        agent?: string;
        device?: string;
      }>(cli, command);
      const groupBy = words.usageGroup.value(options.by, "--by") as UsageGroup;
      const answer = await clients.runs.summarizeUsage({
        groupBy,
        start: timestampFromDate(new Date(Date.now() - parseLength(options.since, "--since"))),
        watcherId: options.watcher ?? "",
        agentId: options.agent ?? "",
        deviceId: options.device ? await deviceId(clients, options.device) : "",
      });
      if (options.json) return printJson(cli, SummarizeUsageResponseSchema, answer);
      if (answer.sums.length === 0) return cli.note("no agent has told what it used");
      const names = await namesOf(clients, groupBy);
      const header = options.by.toUpperCase();
      const lines = table(answer.sums, columnsOf(header, names), cli.columns);
      for (const line of lines) cli.out(line);
    });
  examples(command, [
    ["usage", "by watcher, of the last 30 days"],
    ["usage --by day --since 7d", "day by day"],
  ]);
}

async function namesOf(clients: Clients, group: UsageGroup): Promise<Map<string, string>> {
  if (group === UsageGroup.DEVICE) return deviceLabels(clients);
  if (group !== UsageGroup.WATCHER) return new Map();
  const { watchers } = await clients.watchers.listWatchers({ pageSize: 500 });
  return new Map(watchers.map(({ id, slug }) => [id, slug]));
}

const count = (value: bigint) => value.toLocaleString("en-US");

function columnsOf(header: string, names: Map<string, string>): Column<UsageSum>[] {
  return [
    { header, cell: ({ group }) => plain(names.get(group) ?? group) || "(gone)" },
    { header: "RUNS", cell: ({ runs }) => count(runs), align: "right" },
    { header: "TOKENS IN", cell: ({ inputTokens }) => count(inputTokens), align: "right" },
    { header: "CACHED", cell: ({ cachedInputTokens }) => count(cachedInputTokens), align: "right" },
    { header: "TOKENS OUT", cell: ({ outputTokens }) => count(outputTokens), align: "right" },
    {
      header: "COST",
      cell: ({ costMicros, runsWithCost }) => (runsWithCost > 0n ? formatCost(costMicros) : ""),
      align: "right",
    },
  ];
}
