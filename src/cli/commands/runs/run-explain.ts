import type { Command } from "commander";
import {
  type ChainLink,
  ExplainRunResponseSchema,
  type RunCandidate,
  type RunFact,
} from "#gen/pinion/v1/run_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { connect } from "../../context.ts";
import { runId } from "../../lookup.ts";
import { printJson } from "../../print/json.ts";
import { plain, table } from "../../print/table.ts";
import { formatAgo, formatMoment } from "../../print/times.ts";
import * as words from "../../print/words.ts";

/** `pinion runs explain`: why a run is where it is. */
export function addExplain(runs: Command, cli: Cli): void {
  const command = runs
    .command("explain")
    .argument("<run>", "the run's id")
    .description("why a run is where it is")
    .action(async (id: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const answer = await clients.runs.explainRun({ runId: await runId(clients, id) });
      if (options.json) return printJson(cli, ExplainRunResponseSchema, answer);
      const { bold, dim } = cli.colors;
      const status = words.paintState(cli, words.runStatus.word(answer.run?.status ?? 0));
      cli.out(`${status}  ${bold(plain(answer.summary))}`);
      cli.out("");
      for (const line of timeline(cli, answer.facts)) cli.out(line);
      if (answer.chain.length > 0) cli.out("");
      for (const line of chainLines(cli, answer.chain)) cli.out(line);
      if (answer.candidates.length > 0) cli.out("");
      for (const line of candidateLines(cli, answer.candidates)) cli.out(line);
      if (answer.nextStep) cli.out(`\n${dim("next:")} ${plain(answer.nextStep)}`);
    });
  examples(command, [
    ["runs explain 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", "what happened, and what has to happen next"],
  ]);
}

function chainLines(cli: Cli, chain: readonly ChainLink[]): string[] {
  return table<ChainLink>(
    chain,
    [
      {
        header: "CHAIN",
        cell: (link) => `${"  ".repeat(link.depth)}${plain(link.watcherSlug || link.watcherId)}`,
      },
      { header: "RUN", cell: (link) => link.runId || "none" },
      {
        header: "STATUS",
        cell: (link) =>
          link.runId
            ? words.paintState(cli, words.runStatus.word(link.status))
            : cli.colors.dim(plain(link.reason)),
        isFlexible: true,
      },
    ],
    cli.columns,
  );
}

/** Candidate devices of the run, with the reason why each does not take the run. */
function candidateLines(cli: Cli, candidates: readonly RunCandidate[]): string[] {
  return table<RunCandidate>(
    candidates,
    [
      { header: "DEVICE", cell: (device) => plain(device.label) },
      {
        header: "MATCHES",
        cell: (device) => (device.matches ? cli.colors.green("yes") : cli.colors.dim("no")),
      },
      { header: "WHY NOT", cell: (device) => (device.takes ? "takes it" : plain(device.reason)) },
    ],
    Number.POSITIVE_INFINITY,
  );
}

function timeline(cli: Cli, facts: readonly RunFact[]): string[] {
  return table<RunFact>(
    facts,
    [
      { header: "WHEN", cell: (fact) => cli.colors.dim(formatMoment(fact.at) || "now") },
      { header: "", cell: (fact) => cli.colors.dim(formatAgo(fact.at)), align: "right" },
      { header: "WHAT", cell: (fact) => cli.colors.cyan(plain(fact.kind)) },
      { header: "", cell: (fact) => plain(fact.text) },
    ],
    Number.POSITIVE_INFINITY,
  ).slice(1);
}
