import { create } from "@bufbuild/protobuf";
import { isEnded } from "@pinion/client";
import type { Command } from "commander";
import {
  BulkKind,
  type ChainLink,
  ExplainRunResponseSchema,
  GetTranscriptResponseSchema,
  ListRunsResponseSchema,
  type Run,
  type RunCandidate,
  type RunFact,
  RunSchema,
} from "#gen/pinion/v1/run_pb.js";
import { type Cli, examples, interruptSignal } from "../cli.ts";
import { type Clients, connect } from "../context.ts";
import { exitCodes, Failure } from "../failures.ts";
import { deviceId, deviceLabels, runId } from "../lookup.ts";
import { printJson } from "../print/json.ts";
import { collect, list, wholeNumber } from "../print/paging.ts";
import { lateResultsJson, printLateResults, printRun } from "../print/run-details.ts";
import { type Column, plain, table } from "../print/table.ts";
import { formatAgo, formatDuration, formatMoment } from "../print/times.ts";
import { transcriptLines } from "../print/transcript.ts";
import * as words from "../print/words.ts";
import { addFilterOptions, type FilterOptions, meansMany, runBulk, spanOption } from "./bulk.ts";
import { addQuestions } from "./questions.ts";
import { addSearch, addSummary } from "./run-statistics.ts";
import { watchRun } from "./run-watch.ts";
import { watchRuns } from "./runs-live.ts";
import { addFollowUp } from "./turns.ts";

/** `pinion runs …`: executions of watchers. */
export function addRuns(program: Command, cli: Cli): void {
  const runs = program.command("runs").description("executions of watchers");
  addList(runs, cli);
  addGet(runs, cli);
  addWatch(runs, cli);
  addExplain(runs, cli);
  addCancel(runs, cli);
  addRetry(runs, cli);
  addReplay(runs, cli);
  addQuestions(runs, cli);
  addTranscript(runs, cli);
  addFollowUp(runs, cli);
  addSearch(runs, cli);
  addSummary(runs, cli);
}

function addTranscript(runs: Command, cli: Cli): void {
  const command = runs
    .command("transcript")
    .argument("<run>", "the run's id")
    .description("what the agent of an ended run did, step by step")
    .action(async (id: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const answer = await clients.runs.getTranscript({ runId: await runId(clients, id) });
      if (options.json) return printJson(cli, GetTranscriptResponseSchema, answer);
      const lines = answer.transcript ? transcriptLines(cli, answer.transcript) : [];
      if (lines.length === 0)
        return cli.note("its executor told nothing of what it did; `pinion runs get` has its output");
      for (const line of lines) cli.out(line);
    });
  examples(command, [["runs transcript 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", ""]]);
}

function addList(runs: Command, cli: Cli): void {
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
      const { clients, options } = connect<{
        attention?: true | string;
        watcher?: string;
        device?: string;
        label?: string[];
        since?: string;
        until?: string;
        status?: string[];
        limit: number;
      }>(cli, command);
      const filter = {
        watcherId: options.watcher ?? "",
        deviceId: options.device ? await deviceId(clients, options.device) : "",
        wantsAttention: options.attention === true,
        attention:
          typeof options.attention === "string"
            ? list(options.attention, []).map((word) => words.attention.value(word, "--attention"))
            : [],
        statuses: (options.status ?? []).map((word) => words.runStatus.value(word, "--status")),
        labels: options.label ?? [],
        ...spanOption(options),
      };
      const page = await collect(options.limit, async (request) => {
        const answer = await clients.runs.listRuns({ ...filter, ...request });
        return { items: answer.runs, nextPageToken: answer.nextPageToken };
      });
      if (options.json) {
        const answer = create(ListRunsResponseSchema, {
          runs: page.items,
          nextPageToken: page.nextPageToken,
        });
        return printJson(cli, ListRunsResponseSchema, answer);
      }
      if (page.items.length === 0) {
        const { watcher, device, status, attention, label, since, until } = options;
        const isNarrowed = [watcher, device, status, attention, label, since, until].some(Boolean);
        return cli.note(
          isNarrowed ? "no run is like that" : "no runs; `pinion watchers trigger <watcher>` starts one",
        );
      }
      const columns = runColumns(cli, await deviceLabels(clients), options.wide === true);
      for (const line of table(page.items, columns, cli.columns)) cli.out(line);
      if (page.hasMore) cli.note(`there are more; --limit ${options.limit * 2} shows them`);
    });
  examples(command, [
    ["runs list", "the latest"],
    ["runs list --watcher daily-checkin --status failed,timeout --since 2d", "what went wrong"],
    ["runs list --attention permission_denied,schema", "what ended for one of these reasons"],
    ["runs list --json | jq -r '.runs[].id'", "for a program"],
  ]);
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

function addGet(runs: Command, cli: Cli): void {
  const command = runs
    .command("get")
    .argument("<run>", "the run's id")
    .description("everything about one run, and its output")
    .action(async (id: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const answer = await clients.runs.getRun({ runId: await runId(clients, id) });
      const run = answer.run!;
      if (options.json) return printJson(cli, RunSchema, run, lateResultsJson(answer.lateResults));
      await printRun(cli, clients, run);
      printLateResults(cli, answer.lateResults);
    });
  examples(command, [["runs get 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", "with its output"]]);
}

function addWatch(runs: Command, cli: Cli): void {
  const command = runs
    .command("watch")
    .argument("[run]", "the run's id; without one all runs, as they come and go")
    .description("follow a run: its output on standard output, its states on standard error; or all runs")
    .option("--watcher <watcher>", "without a run: only this watcher's (id or slug)")
    .option("--device <device>", "without a run: only this device's (id or label)")
    .option("--exit-status", "with a run: exit with 1 unless it ends completed")
    .action(async (id: string | undefined, _options, command: Command) => {
      const { clients, options } = connect<WatchOptions>(cli, command);
      const interrupt = interruptSignal();
      try {
        if (id === undefined) await watchAll(cli, clients, options, interrupt.signal);
        else await watchOne(cli, clients, await runId(clients, id), options, interrupt.signal);
      } finally {
        interrupt.dispose();
      }
    });
  examples(command, [
    ["runs watch", "every run, live, until Ctrl-C"],
    ["runs watch --device laptop --json", "a line of JSON for every update"],
    ["runs watch 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", "until it ends; Ctrl-C stops watching, not the run"],
    ["runs watch 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e --exit-status > report.txt", "in a script"],
  ]);
}

type WatchOptions = { watcher?: string; device?: string; exitStatus?: boolean };

async function watchOne(
  cli: Cli,
  clients: Clients,
  id: string,
  options: WatchOptions & { json?: boolean },
  signal: AbortSignal,
): Promise<void> {
  if (options.watcher || options.device) {
    throw new Failure(exitCodes.usage, "a run, or --watcher and --device", "leave one of them out");
  }
  const last = await watchRun(cli, clients, id, { asJson: options.json === true, signal });
  if (!last) return cli.setExitCode(exitCodes.interrupted);
  const isCompleted = words.runStatus.word(last.status) === "completed";
  if (options.exitStatus && !isCompleted) cli.setExitCode(exitCodes.failed);
}

async function watchAll(
  cli: Cli,
  clients: Clients,
  options: WatchOptions & { json?: boolean },
  signal: AbortSignal,
): Promise<void> {
  if (options.exitStatus) {
    throw new Failure(exitCodes.usage, "--exit-status is of one run", "name the run, or leave it out");
  }
  const filter = {
    watcherId: options.watcher
      ? (await clients.watchers.getWatcher({ watcherId: options.watcher })).watcher!.id
      : "",
    deviceId: options.device ? await deviceId(clients, options.device) : "",
  };
  const labels = await deviceLabels(clients);
  await watchRuns(cli, clients, { filter, labels, asJson: options.json === true, signal });
  if (signal.aborted) return cli.setExitCode(exitCodes.interrupted);
  throw new Failure(exitCodes.unreachable, "the server ended the stream", "start the command again");
}

function addExplain(runs: Command, cli: Cli): void {
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

function addCancel(runs: Command, cli: Cli): void {
  const command = addFilterOptions(
    runs
      .command("cancel")
      .argument("[run]", "the run's id; without one, options say which runs")
      .description("end a run before its time, or many")
      .option("--reason <text>", "shown with the run", ""),
  ).action(async (id: string | undefined, _options, command: Command) => {
    const { clients, options } = connect<FilterOptions & { reason: string }>(cli, command);
    if (meansMany(id, options)) return runBulk(cli, clients, options, BulkKind.CANCEL);
    const run = (await clients.runs.cancelRun({ runId: await runId(clients, id!), reason: options.reason }))
      .run!;
    if (options.json) return printJson(cli, RunSchema, run);
    if (isEnded(run)) return cli.out(`${run.id} is ${words.runStatus.word(run.status)}`);
    cli.out(`${run.id} is ${words.runStatus.word(run.status)}; its device was asked to stop it`);
    cli.note(`follow it: pinion runs watch ${run.id}`);
  });
  examples(command, [
    ['runs cancel 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e --reason "wrong prompt"', ""],
    ["runs cancel --watcher hourly --status pending --dry-run", "counts what it would cancel"],
    ["runs cancel --label gpu --yes", "all that live on devices with this label"],
  ]);
}

function addRetry(runs: Command, cli: Cli): void {
  const command = addFilterOptions(
    runs
      .command("retry")
      .argument("[run]", "the ended run's id; without one, options say which runs")
      .description("start a new run with an ended run's window, or for many that did not complete"),
  ).action(async (id: string | undefined, _options, command: Command) => {
    const { clients, options } = connect<FilterOptions>(cli, command);
    if (meansMany(id, options)) return runBulk(cli, clients, options, BulkKind.RETRY);
    const run = (await clients.runs.retryRun({ runId: await runId(clients, id!) })).run!;
    if (options.json) return printJson(cli, RunSchema, run);
    cli.out(run.id);
    cli.note(`follow it: pinion runs watch ${run.id}`);
  });
  examples(command, [
    ["runs retry 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", "prints the new run's id"],
    ["runs retry --status failed --since 2h", "all that failed within two hours, after asking"],
  ]);
}

function addReplay(runs: Command, cli: Cli): void {
  const command = addFilterOptions(
    runs
      .command("replay")
      .description("start new runs for many that have ended, also for those that completed"),
  ).action(async (_options, command: Command) => {
    const { clients, options } = connect<FilterOptions>(cli, command);
    meansMany(undefined, options);
    await runBulk(cli, clients, options, BulkKind.REPLAY);
  });
  examples(command, [
    ["runs replay --watcher hourly --since 1d --yes", "all of a day once more, one after the other"],
  ]);
}
