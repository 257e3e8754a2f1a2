import { randomUUID } from "node:crypto";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { isTurnEnded } from "@pinion/client";
import type { Command } from "commander";
import {
  ListTurnsResponseSchema,
  type StartTurnResponse,
  StartTurnResponseSchema,
  type Turn,
  TurnSchema,
} from "#gen/pinion/v1/turn_pb.js";
import { isUuid } from "../../../values/ids.ts";
import { type Cli, examples, interruptSignal } from "../../cli.ts";
import { type Clients, connect } from "../../context.ts";
import { exitCodes, Failure, told } from "../../failures.ts";
import { deviceLabels, runId } from "../../lookup.ts";
import { printJson } from "../../print/json.ts";
import { printList } from "../../print/lists.ts";
import { list, wholeNumber } from "../../print/paging.ts";
import { lateResultsJson, printLateResults } from "../../print/run-details.ts";
import { type Column, details, plain } from "../../print/table.ts";
import { formatAgo, formatDuration, formatMoment, formatMomentAgo, parseLength } from "../../print/times.ts";
import * as words from "../../print/words.ts";
import { watchTurn } from "./turn-watch.ts";

/** `pinion turns …`: messages to agents, and their replies. */
export function addTurns(program: Command, cli: Cli): void {
  const turns = program.command("turns").description("messages to agents, and their replies");
  addStart(turns, cli);
  addGet(turns, cli);
  addWatch(turns, cli);
  addList(turns, cli);
  addCancel(turns, cli);
}

type StartOptions = {
  agent?: string;
  conversation?: string;
  user?: string;
  watcher?: string;
  run?: string;
  messageId?: string;
  kind?: string;
  timeout?: string;
  snapshot: boolean;
  detach?: boolean;
};

/** `pinion runs follow-up`: a turn in the session of a run's agent. */
export function addFollowUp(runs: Command, cli: Cli): void {
  const command = runs
    .command("follow-up")
    .argument("<run>", "the ended run's id")
    .argument("<message>", "what to say")
    .description("go on with the agent of a run, on its device, where it left off")
    .option("--message-id <id>", "a repeat with the same one answers the same turn (default: a new one)")
    .option("--detach", "print the turn's id and do not wait")
    .action(async (run: string, input: string, _options, command: Command) => {
      const { clients, options } = connect<{ messageId?: string; detach?: boolean }>(cli, command);
      const started = await clients.turns.startTurn({
        resumeRunId: await runId(clients, run),
        messageId: options.messageId ?? randomUUID(),
        input,
      });
      await showStarted(cli, clients, started, options);
    });
  examples(command, [
    [
      'runs follow-up 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e "and which of them is urgent?"',
      "the agent remembers",
    ],
  ]);
}

async function showStarted(
  cli: Cli,
  clients: Clients,
  started: StartTurnResponse,
  options: { detach?: boolean; json?: boolean },
): Promise<void> {
  if (options.detach && options.json) return printJson(cli, StartTurnResponseSchema, started);
  const turn = told(started.turn, "turn");
  if (options.detach) {
    cli.out(turn.id);
    return cli.note(`follow it: pinion turns watch ${turn.id}`);
  }
  await follow(cli, clients, turn.id, options.json === true);
}

function addStart(turns: Command, cli: Cli): void {
  const command = turns
    .command("start")
    .argument("<message>", "what to say")
    .description("say something to an agent, and follow the answer")
    .option("--agent <agent>", "which agent (the org's default one)")
    .option("--user <user>", "who speaks: names the conversation <agent>_<user>_<org>")
    .option("--conversation <id>", "the conversation by its whole id")
    .option("--watcher <id>", "with --run: speak about a watcher's run, in its conversation")
    .option("--run <id>", "the run that it is about")
    .option("--message-id <id>", "a repeat with the same one answers the same turn (default: a new one)")
    .option("--kind <kind>", "what kind of executor answers (the worker's default)")
    .option("--timeout <length>", "how long the answer may take, 1s to 1d (10m)")
    .option(
      "--no-snapshot",
      "wait for no other turn, and neither read nor write what the conversation remembers",
    )
    .option("--detach", "print the turn's id and do not wait")
    .action(async (input: string, _options, command: Command) => {
      const { clients, options } = connect<StartOptions>(cli, command);
      const started = await clients.turns.startTurn({
        agentId: options.agent ?? "",
        conversationId: options.conversation ?? "",
        userId: options.user ?? "",
        watcherId: options.watcher ?? "",
        runId: options.run ?? "",
        messageId: options.messageId ?? randomUUID(),
        input,
        agentKind: options.kind ?? "",
        ...(options.timeout === undefined
          ? {}
          : { timeout: durationFromMs(parseLength(options.timeout, "--timeout")) }),
        withoutSnapshot: !options.snapshot,
      });
      await showStarted(cli, clients, started, options);
    });
  examples(command, [
    ['turns start "what changed today?"', "to the default agent, and the answer as it comes"],
    ['turns start --user ada "and yesterday?"', "in ada's conversation: the agent remembers"],
    ['turns start --user ada --detach --json "summarise it" | jq -r .turn.id', "for a program"],
  ]);
}

/** Sets exit code 1 unless the turn completes. */
async function follow(
  cli: Cli,
  clients: Parameters<typeof watchTurn>[1],
  id: string,
  asJson: boolean,
): Promise<void> {
  const interrupt = interruptSignal();
  try {
    const turn = await watchTurn(cli, clients, id, { asJson, signal: interrupt.signal });
    if (!turn) return cli.setExitCode(exitCodes.interrupted);
    if (words.turnStatus.word(turn.status) !== "completed") cli.setExitCode(exitCodes.failed);
  } finally {
    interrupt.dispose();
  }
}

function addWatch(turns: Command, cli: Cli): void {
  const command = turns
    .command("watch")
    .argument("<turn>", "the turn's id")
    .description("follow a turn: its answer on standard output, its states on standard error")
    .action(async (id: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      await follow(cli, clients, turnId(id), options.json === true);
    });
  examples(command, [
    [
      "turns watch 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e",
      "until it ends; Ctrl-C stops watching, not the turn",
    ],
  ]);
}

function addGet(turns: Command, cli: Cli): void {
  const command = turns
    .command("get")
    .argument("<turn>", "the turn's id")
    .description("everything about one turn, and its reply")
    .action(async (id: string, _options, command: Command) => {
      const { clients, options } = connect(cli, command);
      const { turn: found, lateResults } = await clients.turns.getTurn({ turnId: turnId(id) });
      const turn = told(found, "turn");
      if (options.json) return printJson(cli, TurnSchema, turn, lateResultsJson(lateResults));
      const labels = await deviceLabels(clients);
      const labelled = (deviceId: string) => `${plain(labels.get(deviceId) ?? "")} ${deviceId}`.trim();
      const lines = details(
        [
          ["turn", turn.id],
          ["conversation", turn.conversationId || "none"],
          ["message", plain(turn.messageId)],
          ["status", words.paintState(cli, words.turnStatus.word(turn.status))],
          ["reason", plain(turn.reason)],
          ["worth a retry", turn.isRetryable ? "yes: send it again under another message id" : ""],
          ["agent", `${turn.agentId} (version ${turn.agentVersion})`],
          ["about run", turn.runId],
          ["pinned to", turn.deviceId ? labelled(turn.deviceId) : ""],
          ["answered by", turn.holderId ? labelled(turn.holderId) : ""],
          ["executor", turn.agentKind],
          ["snapshot", turn.usesSnapshot ? "" : "not used"],
          ["left snapshot", turn.snapshotVersion > 0n ? `version ${turn.snapshotVersion}` : ""],
          ["started", formatMomentAgo(turn.createdAt)],
          ["claimed", formatMoment(turn.claimedAt)],
          ["accepted", formatMoment(turn.startedAt)],
          ["last beat", formatMomentAgo(turn.lastBeatAt)],
          ["cancel asked", formatMoment(turn.cancelRequestedAt)],
          ["ended", formatMomentAgo(turn.finishedAt)],
          ["took", formatDuration(turn.duration)],
          ["timeout", formatDuration(turn.timeout)],
          ["exit code", turn.exitCode === undefined ? "" : String(turn.exitCode)],
          ["signal", turn.signal],
        ],
        cli.colors.dim,
      );
      for (const line of lines) cli.out(line);
      if (turn.reply) cli.out(`\n${turn.reply.trimEnd()}`);
      if (turn.outputTail) {
        cli.out(`\n${cli.colors.dim("the end of what its program wrote:")}`);
        cli.out(turn.outputTail.trimEnd());
      }
      printLateResults(cli, lateResults);
    });
  examples(command, [["turns get 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", "with its reply"]]);
}

function addList(turns: Command, cli: Cli): void {
  const command = turns
    .command("list")
    .alias("ls")
    .description("list turns, newest first")
    .option("--conversation <id>", "only this conversation's")
    .option("--agent <agent>", "only this agent's")
    .option(
      "--status <status>",
      `only in this state: ${words.turnStatus.all.join(", ")}; several with commas`,
      list,
    )
    .option("--limit <n>", "how many at most", wholeNumber(1, 10_000), 20)
    .action(async (_options, command: Command) => {
      const { clients, options } = connect<{
        conversation?: string;
        agent?: string;
        status?: string[];
        limit: number;
      }>(cli, command);
      const filter = {
        conversationId: options.conversation ?? "",
        agentId: options.agent ?? "",
        statuses: (options.status ?? []).map((word) => words.turnStatus.value(word, "--status")),
      };
      await printList(cli, options, {
        schema: ListTurnsResponseSchema,
        field: "turns",
        read: (request) => clients.turns.listTurns({ ...filter, ...request }),
        none: 'no turns; `pinion turns start "hello"` starts one',
        columns: columns(cli),
      });
    });
  examples(command, [
    ["turns list", "the latest"],
    ["turns list --conversation pinion-default_ada_local", "what was said there"],
  ]);
}

function columns(cli: Cli): Column<Turn>[] {
  return [
    // Never cut: people copy the id into the next command.
    { header: "TURN", cell: (turn) => turn.id },
    { header: "CONVERSATION", cell: (turn) => turn.conversationId },
    { header: "STATUS", cell: (turn) => words.paintState(cli, words.turnStatus.word(turn.status)) },
    { header: "STARTED", cell: (turn) => formatAgo(turn.createdAt) },
    { header: "TOOK", cell: (turn) => formatDuration(turn.duration), align: "right" },
    { header: "SAID", cell: (turn) => plain(turn.input), isFlexible: true },
    { header: "REPLY", cell: (turn) => plain(turn.reply || turn.reason), isFlexible: true },
  ];
}

function addCancel(turns: Command, cli: Cli): void {
  const command = turns
    .command("cancel")
    .argument("<turn>", "the turn's id")
    .description("end a turn before its time")
    .option("--reason <text>", "shown with the turn", "")
    .action(async (id: string, _options, command: Command) => {
      const { clients, options } = connect<{ reason: string }>(cli, command);
      const turn = told(
        (await clients.turns.cancelTurn({ turnId: turnId(id), reason: options.reason })).turn,
        "turn",
      );
      if (options.json) return printJson(cli, TurnSchema, turn);
      const status = words.turnStatus.word(turn.status);
      if (isTurnEnded(turn)) return cli.out(`${turn.id} is ${status}`);
      cli.out(`${turn.id} is ${status}; its worker was asked to stop it`);
      cli.note(`follow it: pinion turns watch ${turn.id}`);
    });
  examples(command, [["turns cancel 0198c1de-8a52-7c57-b0d5-0f0c4b2f9d3e", ""]]);
}

/** Refuses an invalid turn id before the call. */
function turnId(text: string): string {
  if (isUuid(text)) return text.toLowerCase();
  throw new Failure(
    exitCodes.usage,
    `"${text}" is no turn id`,
    "a turn is named by its whole id; `pinion turns list` shows them, `pinion turns start --detach` prints a new one",
  );
}
