import { durationFromMs, timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import {
  type DeviceWork,
  type RunCount,
  SearchRunsResponseSchema,
  SummarizeRunsResponseSchema,
} from "#gen/pinion/v1/run_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { connect } from "../../context.ts";
import { told } from "../../failures.ts";
import { deviceId, deviceLabels } from "../../lookup.ts";
import { printJson } from "../../print/json.ts";
import { type Column, plain, table } from "../../print/table.ts";
import { formatAgo, formatDuration, formatMoment, parseLength, parseMoment } from "../../print/times.ts";
import * as words from "../../print/words.ts";

/** `pinion runs summary`: how runs ended over time, and the busiest devices. */
export function addSummary(runs: Command, cli: Cli): void {
  const command = runs
    .command("summary")
    .description("how runs ended over time, and on which devices most of them ran")
    .option(
      "--since <moment>",
      "from this moment, 90d back at most: 2026-03-01, 2026-03-01T09:00Z, or 7d",
      "24h",
    )
    .option("--until <moment>", "before this moment; default: now")
    .option("--span <length>", "how long the time of one line is, 1m to 31d", "1h")
    .option("--watcher <watcher>", "only this watcher's runs (id or slug)")
    .option("--device <device>", "only those on this device (id or label)")
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{
        since: string;
        until?: string;
        span: string;
        watcher?: string;
        device?: string;
      }>(cli, command);
      const { until } = options;
      const answer = await clients.runs.summarizeRuns({
        start: timestampFromDate(parseMoment(options.since, "--since")),
        ...(until === undefined ? {} : { end: timestampFromDate(parseMoment(until, "--until")) }),
        span: durationFromMs(parseLength(options.span, "--span")),
        watcherId: options.watcher ?? "",
        deviceId: options.device ? await deviceId(clients, options.device) : "",
      });
      if (options.json) return printJson(cli, SummarizeRunsResponseSchema, answer);
      if (answer.counts.length === 0) return cli.note("no run ended in this time");
      for (const line of table(spansOf(answer.counts), spanColumns(answer.counts), cli.columns))
        cli.out(line);
      if (answer.busiest.length === 0) return;
      const labels = await deviceLabels(clients);
      const columns: Column<DeviceWork>[] = [
        { header: "DEVICE", cell: (one) => plain(labels.get(one.deviceId) ?? one.deviceId) },
        { header: "RUNS", cell: ({ runs }) => String(runs), align: "right" },
        { header: "BUSY", cell: ({ busy }) => formatDuration(busy), align: "right" },
      ];
      cli.out("");
      for (const line of table(answer.busiest, columns, cli.columns)) cli.out(line);
    });
  examples(command, [
    ["runs summary", "hour by hour, of the last day"],
    ["runs summary --since 30d --span 1d --watcher nightly", "day by day, of one watcher"],
  ]);
}

type Span = { at: Date; counts: RunCount[] };

/** The counts by span, in order of time. */
function spansOf(counts: readonly RunCount[]): Span[] {
  const spans = new Map<number, Span>();
  for (const count of counts) {
    const at = timestampDate(told(count.start, "start"));
    const span = spans.get(at.getTime()) ?? { at, counts: [] };
    span.counts.push(count);
    spans.set(at.getTime(), span);
  }
  return [...spans.values()].sort((a, b) => a.at.getTime() - b.at.getTime());
}

/** A column for each status that occurs. */
function spanColumns(all: readonly RunCount[]): Column<Span>[] {
  const statuses = [...new Set(all.map(({ status }) => status))].sort((a, b) => a - b);
  return [
    { header: "FROM", cell: ({ at }) => formatMoment(timestampFromDate(at)) },
    ...statuses.map(
      (status): Column<Span> => ({
        header: words.runStatus.word(status).toUpperCase(),
        cell: ({ counts }) => String(counts.find((count) => count.status === status)?.runs ?? ""),
        align: "right",
      }),
    ),
  ];
}

/** `pinion runs search`: runs by the beginning of an id, and by words of their results. */
export function addSearch(runs: Command, cli: Cli): void {
  const command = runs
    .command("search")
    .argument("<words...>", "words of the result, or the beginning of an id, four letters at least")
    .description("find runs by words of their results, among the newest 1,000, and by their ids")
    .action(async (searched: string[], _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const answer = await clients.runs.searchRuns({ query: searched.join(" ") });
      if (options.json) return printJson(cli, SearchRunsResponseSchema, answer);
      if (answer.hits.length === 0) {
        return cli.note(`nothing was found in ${answer.resultsSearched} results and in the ids of runs`);
      }
      const hits = answer.hits.map(({ run, excerpt }) => ({ run: told(run, "run"), excerpt }));
      const columns: Column<(typeof hits)[number]>[] = [
        { header: "RUN", cell: ({ run }) => run.id },
        { header: "WATCHER", cell: ({ run }) => plain(run.watcherSlug) },
        { header: "STATUS", cell: ({ run }) => words.paintState(cli, words.runStatus.word(run.status)) },
        { header: "ENDED", cell: ({ run }) => formatAgo(run.finishedAt) },
        { header: "RESULT", cell: ({ excerpt }) => plain(excerpt), isFlexible: true },
      ];
      for (const line of table(hits, columns, cli.columns)) cli.out(line);
    });
  examples(command, [
    ["runs search memory leak", "runs whose results hold these words"],
    ["runs search 0198c1", "runs whose ids begin so"],
  ]);
}
