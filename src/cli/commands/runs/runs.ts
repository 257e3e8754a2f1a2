import { isEnded } from "@pinion/client";
import type { Command } from "commander";
import { BulkKind, GetTranscriptResponseSchema, RunSchema } from "#gen/pinion/v1/run_pb.js";
import { type Cli, examples, interruptSignal } from "../../cli.ts";
import { type Clients, connect } from "../../context.ts";
import { exitCodes, Failure, told } from "../../failures.ts";
import { deviceId, deviceLabels, runId } from "../../lookup.ts";
import { printJson } from "../../print/json.ts";
import { lateResultsJson, printLateResults, printRun } from "../../print/run-details.ts";
import { transcriptLines } from "../../print/transcript.ts";
import * as words from "../../print/words.ts";
import { addFollowUp } from "../turns/turns.ts";
import { addFilterOptions, type FilterOptions, meansMany, runBulk } from "./bulk.ts";
import { addQuestions } from "./questions.ts";
import { addExplain } from "./run-explain.ts";
import { addList } from "./run-list.ts";
import { addSearch, addSummary } from "./run-statistics.ts";
import { watchRun } from "./run-watch.ts";
import { watchRuns } from "./runs-live.ts";

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

function addGet(runs: Command, cli: Cli): void {
  const command = runs
    .command("get")
    .argument("<run>", "the run's id")
    .description("everything about one run, and its output")
    .action(async (id: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const answer = await clients.runs.getRun({ runId: await runId(clients, id) });
      const run = told(answer.run, "run");
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
      ? told((await clients.watchers.getWatcher({ watcherId: options.watcher })).watcher, "watcher").id
      : "",
    deviceId: options.device ? await deviceId(clients, options.device) : "",
  };
  const labels = await deviceLabels(clients);
  await watchRuns(cli, clients, { filter, labels, asJson: options.json === true, signal });
  if (signal.aborted) return cli.setExitCode(exitCodes.interrupted);
  throw new Failure(exitCodes.unreachable, "the server ended the stream", "start the command again");
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
    const run = told(
      (await clients.runs.cancelRun({ runId: await runId(clients, id), reason: options.reason })).run,
      "run",
    );
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
    const run = told((await clients.runs.retryRun({ runId: await runId(clients, id) })).run, "run");
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
