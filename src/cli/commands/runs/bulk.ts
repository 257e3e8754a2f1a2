import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import type { Command } from "commander";
import {
  BulkKind,
  type BulkOperation,
  BulkOperationSchema,
  BulkState,
  ListBulkOperationsResponseSchema,
  type RunFilter,
  RunFilterSchema,
  type StartBulkOperationResponse,
  StartBulkOperationResponseSchema,
} from "#gen/pinion/v1/run_pb.js";
import { type Cli, examples, interruptSignal } from "../../cli.ts";
import { type Clients, connect } from "../../context.ts";
import { exitCodes, Failure, told } from "../../failures.ts";
import { deviceId } from "../../lookup.ts";
import { canConfirm, confirm } from "../../print/confirm.ts";
import { printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { list, wholeNumber } from "../../print/paging.ts";
import { details, plain } from "../../print/table.ts";
import { formatAgo, formatMomentAgo, parseMoment } from "../../print/times.ts";
import * as words from "../../print/words.ts";

/** Options for selecting runs instead of an id. */
export type FilterOptions = {
  status?: string[];
  watcher?: string;
  device?: string;
  label?: string[];
  since?: string;
  until?: string;
  yes?: boolean;
  dryRun?: boolean;
};

export function addFilterOptions(command: Command): Command {
  return command
    .option("--status <status>", "all runs in one of these; several with commas or repeated", list)
    .option("--watcher <watcher>", "all runs of this watcher (id or slug)")
    .option("--device <device>", "all runs on this device, or waiting for it (id or label)")
    .option(
      "--label <label>",
      "all runs on devices with all of these labels; several with commas or repeated",
      list,
    )
    .option("--since <moment>", "all runs that were due since then: 2026-03-01, 2026-03-01T09:00Z, or 2h")
    .option("--until <moment>", "and before then")
    .option("--dry-run", "count them, and do nothing")
    .option("--yes", "do not ask");
}

/**
 * True if options select many runs. Throws a Failure for options together with an id, and for
 * neither.
 */
export function meansMany(id: string | undefined, options: FilterOptions): id is undefined {
  const { status, watcher, device, label, since, until, dryRun } = options;
  const isFiltered = [status, watcher, device, label, since, until].some((option) => option !== undefined);
  if (id !== undefined && (isFiltered || dryRun)) {
    throw new Failure(exitCodes.usage, "name one run by its id, or many by options, and not both");
  }
  if (id === undefined && !isFiltered) {
    throw new Failure(
      exitCodes.usage,
      "no run was named",
      "give its id, or say which: --status, --watcher, --device, --label, --since, --until",
    );
  }
  return id === undefined;
}

/** The moments of --since and --until. */
export function spanOption({ since, until }: { since?: string; until?: string }) {
  return {
    ...(since ? { since: timestampFromDate(parseMoment(since, "--since")) } : {}),
    ...(until ? { until: timestampFromDate(parseMoment(until, "--until")) } : {}),
  };
}

async function filterOf(clients: Clients, options: FilterOptions): Promise<RunFilter> {
  return create(RunFilterSchema, {
    statuses: (options.status ?? []).map((word) => words.runStatus.value(word, "--status")),
    watcherId: options.watcher ?? "",
    deviceId: options.device ? await deviceId(clients, options.device) : "",
    labels: options.label ?? [],
    ...spanOption(options),
  });
}

const verbs: Record<number, string> = {
  [BulkKind.CANCEL]: "cancel",
  [BulkKind.RETRY]: "retry",
  [BulkKind.REPLAY]: "replay",
};

/**
 * Counts the selected runs, asks for a confirmation, starts the operation and reports its progress
 * until the end.
 */
export async function runBulk(
  cli: Cli,
  clients: Clients,
  options: FilterOptions & { json?: boolean; reason?: string },
  kind: BulkKind,
): Promise<void> {
  const asked = { kind, filter: await filterOf(clients, options), reason: options.reason ?? "" };
  const preview = await clients.runs.startBulkOperation({ ...asked, dryRun: true });
  if (options.dryRun) {
    if (options.json) return printJson(cli, StartBulkOperationResponseSchema, preview);
    return printPreview(cli, preview);
  }
  if (preview.matched === 0) {
    if (options.json) return printJson(cli, StartBulkOperationResponseSchema, preview);
    return printPreview(cli, preview);
  }
  const interrupt = interruptSignal();
  try {
    await askAndStart(cli, clients, { ...options, ...{ asked, preview, kind, signal: interrupt.signal } });
  } finally {
    interrupt.dispose();
  }
}

async function askAndStart(
  cli: Cli,
  clients: Clients,
  options: {
    yes?: boolean;
    json?: boolean;
    asked: { kind: BulkKind; filter: RunFilter; reason: string };
    preview: StartBulkOperationResponse;
    kind: BulkKind;
    signal: AbortSignal;
  },
): Promise<void> {
  const { asked, preview, kind, signal } = options;
  if (!options.yes) {
    for (const line of previewLines(preview)) cli.note(line);
    const question = `${verbs[kind]} ${preview.matched} runs?`;
    if (options.json || !canConfirm(cli.isTerminal)) {
      throw new Failure(exitCodes.usage, `${question} nobody was there to be asked`, "say --yes");
    }
    if (!(await confirm(question, { signal }))) return cli.note("nothing was done");
  }
  const started = await clients.runs.startBulkOperation(asked);
  if (options.json) {
    return printJson(cli, StartBulkOperationResponseSchema, started);
  }
  const operation = told(started.operation, "operation");
  cli.out(operation.id);
  cli.note(`it goes on by itself: pinion bulk get ${operation.id}`);
  await follow(cli, clients, operation, signal);
}

/** Polling interval and time limit of the progress, in ms. */
const followEveryMs = 300;
const followMs = 60_000;

async function follow(cli: Cli, clients: Clients, { id }: BulkOperation, signal: AbortSignal): Promise<void> {
  const until = Date.now() + followMs;
  while (Date.now() < until && !signal.aborted) {
    const operation = told((await clients.runs.getBulkOperation({ operationId: id })).operation, "operation");
    if (operation.state !== BulkState.RUNNING) return cli.note(progressOf(operation));
    await new Promise((resolve) => setTimeout(resolve, followEveryMs));
  }
}

function progressOf({ matched, done, passedOver, failed, left }: BulkOperation): string {
  const parts = [
    `${done} of ${matched} done`,
    ...(passedOver > 0 ? [`${passedOver} had ended before`] : []),
    ...(failed > 0 ? [`${failed} failed`] : []),
    ...(left > 0 ? [`${left} left`] : []),
  ];
  return parts.join(", ");
}

function previewLines({ matched, notAllowed, counts }: StartBulkOperationResponse): string[] {
  const named = counts.map(({ status, watcherSlug, count }) =>
    watcherSlug ? `  ${count} of ${plain(watcherSlug)}` : `  ${count} ${words.runStatus.word(status)}`,
  );
  return [
    `${matched} ${matched === 1 ? "run is" : "runs are"} meant`,
    ...named,
    ...(notAllowed > 0 ? [`${notAllowed} more are on devices that you may not use, and are left out`] : []),
  ];
}

function printPreview(cli: Cli, preview: StartBulkOperationResponse): void {
  for (const line of previewLines(preview)) cli.out(line);
}

/**
 * `pinion bulk …`: operations on many runs, started by `pinion runs cancel`, `retry` and `replay`.
 */
export function addBulk(program: Command, cli: Cli): void {
  const bulk = program
    .command("bulk")
    .description("cancels, retries and replays of many runs, which go on in the background");
  const listing = bulk
    .command("list")
    .alias("ls")
    .description("operations, newest first")
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 20)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{ limit: number }>(cli, command);
      await printList(cli, options, {
        schema: ListBulkOperationsResponseSchema,
        field: "operations",
        read: (request) => clients.runs.listBulkOperations(request),
        none: "no operations; `pinion runs cancel --watcher …` starts one",
        columns: [
          { header: "OPERATION", cell: (it: BulkOperation) => it.id },
          { header: "WHAT", cell: (it: BulkOperation) => verbs[it.kind] ?? "" },
          { header: "STATE", cell: (it: BulkOperation) => words.bulkState.word(it.state) },
          { header: "PROGRESS", cell: progressOf },
          { header: "BEGAN", cell: (it: BulkOperation) => formatAgo(it.createdAt) },
          { header: "BY", cell: (it: BulkOperation) => plain(it.actor) },
        ],
      });
    });
  examples(listing, [["bulk list", "what goes on, and what was done"]]);
  const one = (
    name: string,
    description: string,
    act: (clients: Clients, id: string) => Promise<BulkOperation>,
  ) => {
    const command = bulk
      .command(name)
      .argument("<operation>", "the operation's id")
      .description(description)
      .action(async (id: string, _options, command: Command) => {
        const { clients, options } = connect(cli, command);
        const operation = await act(clients, id);
        if (options.json) return printJson(cli, BulkOperationSchema, operation);
        printOperation(cli, operation);
      });
    examples(command, [[`bulk ${name} 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e`, ""]]);
  };
  one("get", "how far an operation is, and what went wrong", async (clients, operationId) => {
    return told((await clients.runs.getBulkOperation({ operationId })).operation, "operation");
  });
  one("stop", "end an operation: what was done stays done", async (clients, operationId) => {
    return told((await clients.runs.stopBulkOperation({ operationId })).operation, "operation");
  });
}

function printOperation(cli: Cli, operation: BulkOperation): void {
  const lines = details(
    [
      ["operation", operation.id],
      ["what", verbs[operation.kind] ?? ""],
      ["state", words.bulkState.word(operation.state)],
      ["progress", progressOf(operation)],
      ["reason", plain(operation.reason)],
      ["by", plain(operation.actor)],
      ["began", formatMomentAgo(operation.createdAt)],
      ["ended", formatMomentAgo(operation.finishedAt)],
    ],
    cli.colors.dim,
  );
  for (const line of lines) cli.out(line);
  for (const { runId, reason } of operation.problems) cli.out(`${runId}  ${plain(reason)}`);
}
