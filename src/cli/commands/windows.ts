import { create } from "@bufbuild/protobuf";
import type { Command } from "commander";
import { ListWindowsResponseSchema, type Window } from "#gen/pinion/v1/run_pb.js";
import { type Cli, examples } from "../cli.ts";
import { connect } from "../context.ts";
import { printJson } from "../print/json.ts";
import { collect, wholeNumber } from "../print/paging.ts";
import { windowOutput } from "../print/run-details.ts";
import { cut, plain, plainLines, table } from "../print/table.ts";
import { formatAgo, formatMoment } from "../print/times.ts";

const windowPageSize = 100;
/** Maximum characters of each output in the list; `--output` shows all. */
const previewLength = 80;

/** `pinion windows …`: the stored results of watchers. */
export function addWindows(program: Command, cli: Cli): void {
  const windows = program.command("windows").description("the stored results of watchers");
  const command = windows
    .command("list")
    .alias("ls")
    .argument("<watcher>", "id or slug")
    .description("list a watcher's results, newest first")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 20)
    .option("--output", "print each result whole instead of a table")
    .action(async (watcher: string, _options, command: Command) => {
      const { clients, options } = connect<{ limit: number; output?: boolean }>(cli, command);
      const page = await collect(
        options.limit,
        async (request) => {
          const answer = await clients.runs.listWindows({ watcherId: watcher, ...request });
          return { items: answer.windows, nextPageToken: answer.nextPageToken };
        },
        windowPageSize,
      );
      if (options.json) {
        const answer = create(ListWindowsResponseSchema, {
          windows: page.items,
          nextPageToken: page.nextPageToken,
        });
        return printJson(cli, ListWindowsResponseSchema, answer);
      }
      if (page.items.length === 0) return cli.note("no results yet; a completed run stores one");
      if (options.output) return printWhole(cli, page.items);
      for (const line of listing(cli, page.items)) cli.out(line);
      if (page.hasMore) cli.note(`there are more; --limit ${options.limit * 2} shows them`);
    });
  examples(command, [
    ["windows list daily-checkin", "one line each"],
    ["windows list daily-checkin --limit 1 --output", "the latest result"],
  ]);
}

function printWhole(cli: Cli, windows: readonly Window[]): void {
  for (const window of windows) {
    cli.out(cli.colors.bold(`${formatMoment(window.windowStart)} to ${formatMoment(window.windowEnd)}`));
    cli.out(`${plainLines(window.result || windowOutput(window))}\n`);
  }
}

function listing(cli: Cli, windows: readonly Window[]): string[] {
  return table(
    windows,
    [
      { header: "STORED", cell: (window) => formatAgo(window.createdAt) },
      { header: "FROM", cell: (window) => formatMoment(window.windowStart) },
      { header: "TO", cell: (window) => formatMoment(window.windowEnd) },
      { header: "RUN", cell: (window) => window.runId },
      {
        header: "OUTPUT",
        cell: (window) => cut(plain(window.result || windowOutput(window)), previewLength),
        isFlexible: true,
      },
    ],
    cli.columns,
  );
}
