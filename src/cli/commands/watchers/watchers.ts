import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import {
  BackfillWatcherResponseSchema,
  ListWatchersResponseSchema,
  PreviewScheduleResponseSchema,
  TriggerWatcherResponseSchema,
  WatcherSchema,
} from "#gen/pinion/v1/watcher_pb.js";
import { type Cli, examples, interruptSignal } from "../../cli.ts";
import { connect } from "../../context.ts";
import { exitCodes, Failure, told } from "../../failures.ts";
import { deviceId, deviceLabels } from "../../lookup.ts";
import { printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { findLocalZone, localTimeZone } from "../../print/local-zone.ts";
import { wholeNumber } from "../../print/paging.ts";
import { plain, table } from "../../print/table.ts";
import { formatAgo, formatMoment, formatMomentAgo, parseMoment } from "../../print/times.ts";
import { printWatcher, watcherColumns } from "../../print/watcher-details.ts";
import * as words from "../../print/words.ts";
import { watchRun } from "../runs/run-watch.ts";
import { addWatcherVersions } from "./versions.ts";
import { addSpecOptions, type SpecOptions } from "./watcher-options.ts";
import { inputOf, specOf } from "./watcher-spec.ts";

const attempts = wholeNumber(1, 20);

/** `pinion watchers …`: standing instructions. */
export function addWatchers(program: Command, cli: Cli): void {
  const watchers = program
    .command("watchers")
    .description("standing instructions: a prompt, a schedule, a device");
  addCreate(watchers, cli);
  addList(watchers, cli);
  addGet(watchers, cli);
  addUpdate(watchers, cli);
  addPause(watchers, cli);
  addResume(watchers, cli);
  addDelete(watchers, cli);
  addTrigger(watchers, cli);
  addPreview(watchers, cli);
  addBackfill(watchers, cli);
  addWatcherVersions(watchers, cli);
}

function addCreate(watchers: Command, cli: Cli): void {
  const command = watchers
    .command("create")
    .argument("[slug]", "its name in commands: a-z, 0-9 and -; default: made from --name")
    .description("make a watcher")
    .option("--request-id <id>", "a repeat with the same id returns the first one's watcher")
    .action(async (slug: string | undefined, _options, command: Command) => {
      const { clients, options } = connect<SpecOptions & { requestId?: string }>(cli, command);
      const { spec } = await specOf(clients, options);
      if (!spec.prompt)
        throw new Failure(exitCodes.usage, "a watcher needs a prompt", "give --prompt or --prompt-file");
      spec.name ||= slug ?? "";
      if (!spec.name) throw new Failure(exitCodes.usage, "a watcher needs a name", "give a slug or --name");
      // The default zone is the local zone.
      if (spec.schedule && options.zone === undefined) spec.timeZone = localTimeZone(cli.env);
      const answer = await clients.watchers.createWatcher({
        slug: slug ?? "",
        spec,
        requestId: options.requestId ?? "",
      });
      const watcher = told(answer.watcher, "watcher");
      if (options.json) return printJson(cli, WatcherSchema, watcher);
      cli.out(watcher.slug);
      if (watcher.noExecutorReason) {
        cli.note(`its slots are skipped as no_executor: ${plain(watcher.noExecutorReason)}`);
      }
      cli.note(
        watcher.nextDueAt
          ? `fires ${formatMomentAgo(watcher.nextDueAt)}; now: pinion watchers trigger ${watcher.slug}`
          : `${watcher.spec?.schedule ? "has no slot to come" : "has no schedule"}; start it: pinion watchers trigger ${watcher.slug}`,
      );
    });
  addSpecOptions(command, attempts);
  examples(command, [
    [
      'watchers create repo-digest --schedule "0 9 * * *" --device mac-7 --prompt "Summarise yesterday\'s commits."',
      "",
    ],
    [
      "watchers create lint --device mac-7 --agent-kind codex --prompt-file lint.md",
      "manual only, with another executor",
    ],
    ['watchers create ping --schedule "@hourly" --zone UTC --prompt "Say hello."', "for any fleet worker"],
  ]);
}

function addList(watchers: Command, cli: Cli): void {
  const command = watchers
    .command("list")
    .alias("ls")
    .description("list the watchers, by slug")
    .option("--device <device>", "only those pinned to this device (id or label)")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 200)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{ device?: string; limit: number }>(cli, command);
      const filter = { deviceId: options.device ? await deviceId(clients, options.device) : "" };
      await printList(cli, options, {
        schema: ListWatchersResponseSchema,
        field: "watchers",
        read: (request) => clients.watchers.listWatchers({ ...filter, ...request }),
        none: "no watchers; `pinion watchers create --help` shows how to make one",
        columns: async () => watcherColumns(cli, await deviceLabels(clients), options.wide === true),
      });
    });
  examples(command, [
    ["watchers list", "all of them"],
    ["watchers list --device mac-7 --wide", "of one device, with all columns"],
  ]);
}

function addGet(watchers: Command, cli: Cli): void {
  const command = watchers
    .command("get")
    .argument("<watcher>", "id or slug")
    .description("everything about one watcher")
    .action(async (watcherId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const watcher = told((await clients.watchers.getWatcher({ watcherId })).watcher, "watcher");
      if (options.json) return printJson(cli, WatcherSchema, watcher);
      printWatcher(cli, watcher, await deviceLabels(clients));
    });
  examples(command, [["watchers get daily-checkin", "with its prompt"]]);
}

function addUpdate(watchers: Command, cli: Cli): void {
  const command = watchers
    .command("update")
    .argument("<watcher>", "id or slug")
    .description("change what is named, and nothing else")
    .option("--expected-version <n>", "only if this is still its version", wholeNumber(1, 2 ** 31 - 1))
    .action(async (watcherId: string, _options, command: Command) => {
      const { clients, options } = connect<SpecOptions & { expectedVersion?: number }>(cli, command);
      const { spec, paths } = await specOf(clients, options);
      if (paths.length === 0) {
        throw new Failure(
          exitCodes.usage,
          "nothing to change",
          "name what to change, for example --schedule; see --help",
        );
      }
      const answer = await clients.watchers.updateWatcher({
        watcherId,
        spec,
        updateMask: { paths },
        expectedVersion: options.expectedVersion ?? 0,
      });
      const watcher = told(answer.watcher, "watcher");
      if (options.json) return printJson(cli, WatcherSchema, watcher);
      cli.out(`${watcher.slug} is at version ${watcher.version}`);
      if (watcher.nextDueAt) cli.note(`fires ${formatMomentAgo(watcher.nextDueAt)}`);
    });
  addSpecOptions(command, attempts);
  examples(command, [
    ['watchers update repo-digest --schedule "0 7 * * 1-5" --zone Europe/Berlin', "another schedule"],
    ['watchers update repo-digest --schedule ""', "manual only"],
    ["watchers update repo-digest --device mac-8", "move it to another device"],
  ]);
}

function addPause(watchers: Command, cli: Cli): void {
  const command = watchers
    .command("pause")
    .argument("<watcher>", "id or slug")
    .description("stop its schedule; it can still be triggered")
    .option("--reason <text>", "shown to people", "")
    .action(async (watcherId: string, _options, command: Command) => {
      const { clients, options } = connect<{ reason: string }>(cli, command);
      const watcher = told(
        (await clients.watchers.pauseWatcher({ watcherId, reason: options.reason })).watcher,
        "watcher",
      );
      if (options.json) return printJson(cli, WatcherSchema, watcher);
      cli.out(`${watcher.slug} is ${words.watcherStatus.word(watcher.status)}`);
    });
  examples(command, [['watchers pause repo-digest --reason "on holiday"', ""]]);
}

function addResume(watchers: Command, cli: Cli): void {
  const command = watchers
    .command("resume")
    .argument("<watcher>", "id or slug")
    .description("start its schedule again, from the next slot after now")
    .action(async (watcherId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const watcher = told((await clients.watchers.resumeWatcher({ watcherId })).watcher, "watcher");
      if (options.json) return printJson(cli, WatcherSchema, watcher);
      cli.out(`${watcher.slug} is ${words.watcherStatus.word(watcher.status)}`);
      if (watcher.nextDueAt) cli.note(`fires ${formatMomentAgo(watcher.nextDueAt)}`);
    });
  examples(command, [["watchers resume repo-digest", "also clears its failure count"]]);
}

function addDelete(watchers: Command, cli: Cli): void {
  const command = watchers
    .command("delete")
    .argument("<watcher>", "id or slug")
    .description("remove a watcher and cancel its active run; its results stay until they expire")
    .action(async (watcherId: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      await clients.watchers.deleteWatcher({ watcherId });
      if (options.json) return cli.out(JSON.stringify({ watcher_id: watcherId, deleted: true }));
      cli.out(`${plain(watcherId)} is removed`);
    });
  examples(command, [["watchers delete repo-digest", ""]]);
}

function addTrigger(watchers: Command, cli: Cli): void {
  const command = watchers
    .command("trigger")
    .argument("<watcher>", "id or slug")
    .description("start a run now, whatever the schedule says")
    .option("--input <json>", "what the run is about; its prompt refers to it as {{ input.name }}")
    .option("--input-file <file>", 'the same from a file; "-" reads standard input')
    .option("--watch", "follow the run to its end; exits with 1 unless it ends completed")
    .action(async (watcherId: string, _options, command: Command) => {
      const { clients, options } = connect<{ watch?: boolean; input?: string; inputFile?: string }>(
        cli,
        command,
      );
      const input = inputOf(options);
      const answer = await clients.watchers.triggerWatcher({ watcherId, ...(input ? { input } : {}) });
      const run = told(answer.run, "run");
      if (run.status === RunStatus.SKIPPED) {
        throw new Failure(
          exitCodes.conflict,
          `recorded as the skipped run ${run.id}: ${plain(run.reason)}`,
          "wait for the end of the active run, or give the watcher --overlap queue_all",
        );
      }
      if (answer.queuedRunId !== "" && !options.json) {
        cli.note(`waits for the end of run ${run.id}, as run ${answer.queuedRunId}`);
      }
      if (!options.watch) {
        if (options.json) return printJson(cli, TriggerWatcherResponseSchema, answer);
        cli.out(run.id);
        cli.note(
          `${answer.alreadyQueued ? "was active already; " : ""}follow it: pinion runs watch ${run.id}`,
        );
        return;
      }
      const interrupt = interruptSignal();
      try {
        if (!options.json) cli.note(`run ${run.id}${answer.alreadyQueued ? " (was active already)" : ""}`);
        const last = await watchRun(cli, clients, run.id, {
          asJson: options.json === true,
          signal: interrupt.signal,
        });
        if (!last) cli.setExitCode(exitCodes.interrupted);
        else if (words.runStatus.word(last.status) !== "completed") cli.setExitCode(exitCodes.failed);
      } finally {
        interrupt.dispose();
      }
    });
  examples(command, [
    ["watchers trigger daily-checkin", "prints the run's id"],
    ["watchers trigger daily-checkin --watch", "and shows it live"],
    [`watchers trigger review --input '{"commit": {"sha": "abc123"}}'`, "with an input"],
  ]);
}

function addPreview(watchers: Command, cli: Cli): void {
  const command = watchers
    .command("preview")
    .argument("[watcher]", "id or slug; or give --schedule")
    .description("the next moments at which a schedule fires")
    .option("--schedule <cron>", "a schedule of no watcher yet")
    .option("--zone <zone>", "its IANA time zone; default: this machine's")
    .option("--count <n>", "how many", wholeNumber(1, 100), 5)
    .option("--after <moment>", "moments after this one; default: now")
    .action(async (watcher: string | undefined, _options, command: Command) => {
      const { clients, options } = connect<{
        schedule?: string;
        zone?: string;
        count: number;
        after?: string;
      }>(cli, command);
      if ((watcher === undefined) === (options.schedule === undefined)) {
        throw new Failure(exitCodes.usage, "name a watcher, or give --schedule");
      }
      const answer = await clients.watchers.previewSchedule({
        watcherId: watcher ?? "",
        schedule: options.schedule ?? "",
        timeZone: options.schedule === undefined ? "" : (options.zone ?? localTimeZone(cli.env)),
        count: options.count,
        ...(options.after ? { after: timestampFromDate(parseMoment(options.after, "--after")) } : {}),
      });
      if (options.json) return printJson(cli, PreviewScheduleResponseSchema, answer);
      if (answer.slots.length === 0) return cli.note("it does not fire any more");
      const isLocal = answer.timeZone === findLocalZone(cli.env);
      const lines = table(
        answer.slots,
        [
          { header: answer.timeZone, cell: (slot) => formatMoment(slot, answer.timeZone) },
          { header: "HERE", cell: (slot) => (isLocal ? "" : formatMoment(slot)) },
          { header: "FROM NOW", cell: (slot) => formatAgo(slot) },
        ],
        cli.columns,
      );
      for (const line of lines) cli.out(line);
    });
  examples(command, [
    ["watchers preview daily-checkin", "of a watcher"],
    [
      'watchers preview --schedule "30 2 * * *" --zone Europe/Berlin --after 2026-03-27',
      "over a change of the clocks",
    ],
  ]);
}

function addBackfill(watchers: Command, cli: Cli): void {
  const command = watchers
    .command("backfill")
    .argument("<watcher>", "id or slug")
    .description("run the slots of a span of the past that have no run yet, one after the other")
    .requiredOption("--from <moment>", "first moment: 2026-03-01, 2026-03-01T09:00Z, or 2d for two days ago")
    .option("--to <moment>", "last moment, exclusive", "now")
    .action(async (watcherId: string, _options, command: Command) => {
      const { clients, options } = connect<{ from: string; to: string }>(cli, command);
      const answer = await clients.watchers.backfillWatcher({
        watcherId,
        start: timestampFromDate(parseMoment(options.from, "--from")),
        end: timestampFromDate(parseMoment(options.to, "--to")),
      });
      if (options.json) return printJson(cli, BackfillWatcherResponseSchema, answer);
      cli.out(`${answer.slotsAccepted} slots will run; ${answer.slotsPresent} have a run already`);
    });
  examples(command, [
    ["watchers backfill repo-digest --from 7d", "the last week"],
    ["watchers backfill repo-digest --from 2026-03-01 --to 2026-03-08", "a span"],
  ]);
}
