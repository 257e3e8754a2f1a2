import type { Command } from "commander";
import { ListWindowsResponseSchema, type Window } from "#gen/pinion/v1/run_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { connect } from "../../context.ts";
import { printList } from "../../print/lists.ts";
import { wholeNumber } from "../../print/paging.ts";
import { windowOutput } from "../../print/run-details.ts";
import { type Column, plain, plainLines } from "../../print/table.ts";
import { formatAgo, formatMoment } from "../../print/times.ts";
import { cut } from "../../print/width.ts";

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
      await printList(cli, options, {
        schema: ListWindowsResponseSchema,
        field: "windows",
        read: (request) => clients.runs.listWindows({ watcherId: watcher, ...request }),
        pageSize: windowPageSize,
        none: "no results yet; a completed run stores one",
        show: options.output ? (windows) => printWhole(cli, windows) : undefined,
        columns,
      });
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

const columns: Column<Window>[] = [
  { header: "STORED", cell: (window) => formatAgo(window.createdAt) },
  { header: "FROM", cell: (window) => formatMoment(window.windowStart) },
  { header: "TO", cell: (window) => formatMoment(window.windowEnd) },
  { header: "RUN", cell: (window) => window.runId },
  {
    header: "OUTPUT",
    cell: (window) => cut(plain(window.result || windowOutput(window)), previewLength),
    isFlexible: true,
  },
];
