import type { Command } from "commander";
import { ListRunsResponseSchema, type Run } from "#gen/pinion/v1/run_pb.js";
import { type Cli, examples } from "../../cli.ts";
import { type Clients, connect } from "../../context.ts";
import { deviceId, deviceLabels } from "../../lookup.ts";
import { printList } from "../../print/lists.ts";
import { list, wholeNumber } from "../../print/paging.ts";
import { type Column, plain } from "../../print/table.ts";
import { formatAgo, formatDuration, formatMoment } from "../../print/times.ts";
import * as words from "../../print/words.ts";
import { spanOption } from "./bulk.ts";

/** `pinion runs list`. */
export function addList(runs: Command, cli: Cli): void {
  const command = runs
    .command("list")
    .alias("ls")
    .description("list runs, newest first")
    .option("--watcher <watcher>", "only this watcher's (id or slug)")
    .option("--device <device>", "only this device's (id or label)")
    .option(
      "--status <status>",
      `only in this state: ${words.runStatus.all.join(", ")}; several with commas`,
      list,
    )
    .option(
      "--attention [reasons]",
      `only runs that ended with reasons for people to look, or with one of these: ${words.attention.all.join(", ")}`,
    )
    .option("--label <label>", "only on devices with all of these labels; several with commas", list)
    .option("--since <moment>", "only runs due since then: 2026-03-01, 2026-03-01T09:00Z, or 2h")
    .option("--until <moment>", "and before then")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 20)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<ListOptions>(cli, command);
      const filter = await filterOf(clients, options);
      const { watcher, device, status, attention, label, since, until } = options;
      const isNarrowed = [watcher, device, status, attention, label, since, until].some(Boolean);
      await printList(cli, options, {
        schema: ListRunsResponseSchema,
        field: "runs",
        read: (request) => clients.runs.listRuns({ ...filter, ...request }),
        none: isNarrowed ? "no run is like that" : "no runs; `pinion watchers trigger <watcher>` starts one",
        columns: async () => runColumns(cli, await deviceLabels(clients), options.wide === true),
      });
    });
  examples(command, [
    ["runs list", "the latest"],
    ["runs list --watcher daily-checkin --status failed,timeout --since 2d", "what went wrong"],
    ["runs list --attention permission_denied,schema", "what ended for one of these reasons"],
    ["runs list --json | jq -r '.runs[].id'", "for a program"],
  ]);
}

type ListOptions = {
  attention?: true | string;
  watcher?: string;
  device?: string;
  label?: string[];
  since?: string;
  until?: string;
  status?: string[];
  limit: number;
};

async function filterOf(clients: Clients, options: ListOptions) {
  const { attention } = options;
  const reasons = typeof attention === "string" ? list(attention, []) : [];
  return {
    watcherId: options.watcher ?? "",
    deviceId: options.device ? await deviceId(clients, options.device) : "",
    wantsAttention: attention === true,
    attention: reasons.map((word) => words.attention.value(word, "--attention")),
    statuses: (options.status ?? []).map((word) => words.runStatus.value(word, "--status")),
    labels: options.label ?? [],
    ...spanOption(options),
  };
}

/** The state, with a mark for open questions or attention. */
function statusCell(cli: Cli, run: Run): string {
  const status = words.paintState(cli, words.runStatus.word(run.status));
  if (run.openQuestions > 0) return `${status} ${cli.colors.yellow("waits for an answer")}`;
  return run.attention.length > 0 ? `${status} ${cli.colors.yellow("!")}` : status;
}

function runColumns(cli: Cli, labels: Map<string, string>, isWide: boolean): Column<Run>[] {
  const columns: Column<Run>[] = [
    // Never cut: people copy the id into the next command.
    { header: "RUN", cell: (run) => run.id },
    { header: "WATCHER", cell: (run) => run.watcherSlug || run.watcherId },
    { header: "STATUS", cell: (run) => statusCell(cli, run) },
    { header: "DUE", cell: (run) => (isWide ? formatMoment(run.dueAt) : formatAgo(run.dueAt)) },
    { header: "TOOK", cell: (run) => formatDuration(run.duration), align: "right" },
    { header: "DEVICE", cell: (run) => plain(labels.get(run.deviceId) ?? run.deviceId) },
  ];
  if (isWide) {
    columns.push(
      { header: "SOURCE", cell: (run) => words.runSource.word(run.source) },
      { header: "ATTEMPT", cell: (run) => `${run.attempt}/${run.maxAttempts}`, align: "right" },
      { header: "AGENT", cell: (run) => run.agentId },
      { header: "KIND", cell: (run) => run.agentKind },
      { header: "WINDOW", cell: (run) => run.windowId },
    );
  }
  columns.push({
    header: "REASON",
    cell: (run) => plain([words.skipReason.word(run.skipReason), run.reason].filter(Boolean).join(": ")),
    isFlexible: true,
  });
  return columns;
}
