import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { isTurnEnded, OutputStream, waitForTurn } from "@pinion/client";
import type { RunOutput } from "#gen/pinion/v1/run_pb.js";
import { type Turn, TurnStatus, WatchTurnResponseSchema } from "#gen/pinion/v1/turn_pb.js";
import type { Cli } from "../../cli.ts";
import type { Clients } from "../../context.ts";
import { printJsonLine } from "../../print/json.ts";
import { plain } from "../../print/table.ts";
import { formatDuration } from "../../print/times.ts";
import * as words from "../../print/words.ts";

/**
 * Follows a turn to its end, over any number of streams: the answer on standard output and states
 * on standard error, or every update as a line of JSON. Resolves to the ended turn; to undefined if
 * the signal came first. Fails at once if the server is not reachable at the start.
 */
export async function watchTurn(
  cli: Cli,
  clients: Clients,
  id: string,
  options: { asJson: boolean; signal: AbortSignal },
): Promise<Turn | undefined> {
  // `waitForTurn` survives an unreachable server, so reachability is checked first.
  await clients.turns.getTurn({ turnId: id });
  const { signal } = options;
  const view = options.asJson ? jsonView(cli) : turnView(cli);
  try {
    const turn = await waitForTurn(clients, id, { signal, onTurn: view.turn, onOutput: view.output });
    view.end(turn);
    return turn;
  } catch (error) {
    if (signal.aborted) return undefined;
    throw error;
  }
}

type View = { turn(turn: Turn): void; output(output: RunOutput): void; end(turn: Turn): void };

/** Updates of a turn for programs: the stream's own messages. */
function jsonView(cli: Cli): View {
  const print = (update: NonNullable<MessageInitShape<typeof WatchTurnResponseSchema>["update"]>) =>
    printJsonLine(cli, WatchTurnResponseSchema, create(WatchTurnResponseSchema, { update }));
  return {
    turn: (turn) => print(isTurnEnded(turn) ? { case: "ended", value: turn } : { case: "turn", value: turn }),
    output: (output) => print({ case: "output", value: output }),
    end: () => {},
  };
}

/** Updates of a turn for people: the program's output, and at the end exactly the reply, once. */
function turnView(cli: Cli): View {
  let shown = "";
  let isAtLineStart = true;
  let sequence = 0n;
  let hasGap = false;
  const note = (line: string) => {
    // On a terminal both streams share the screen, so a state starts on a new line.
    if (!isAtLineStart && cli.isTerminal) cli.raw("\n");
    isAtLineStart = true;
    cli.note(line);
  };
  return {
    turn(turn) {
      if (isTurnEnded(turn)) return;
      const line = [
        words.paintState(cli, words.turnStatus.word(turn.status)),
        turn.status === TurnStatus.PENDING ? "waits for a worker" : "",
        turn.openQuestions > 0 ? `waits for an answer: pinion runs answer ${turn.id}` : "",
        turn.cancelRequestedAt ? "cancel asked for" : "",
        plain(turn.reason),
      ]
        .filter(Boolean)
        .join(" · ");
      if (line !== shown) note(line);
      shown = line;
    },
    output(output) {
      hasGap ||= output.sequence !== sequence + 1n;
      sequence = output.sequence;
      // Only standard output is the answer.
      if (hasGap || output.stream !== OutputStream.STDOUT) return;
      cli.program(output.data);
      isAtLineStart = output.data.at(-1) === 0x0a;
    },
    end(turn) {
      if (turn.reply && (sequence === 0n || hasGap)) {
        if (sequence > 0n) note(cli.colors.dim("a part of the answer was not seen live; the whole of it:"));
        cli.program(turn.reply);
        isAtLineStart = turn.reply.endsWith("\n");
      }
      const how = [
        plain(turn.reason),
        turn.isRetryable ? "it may be sent again" : "",
        turn.exitCode ? `exit code ${turn.exitCode}` : "",
        turn.signal,
        turn.duration ? `took ${formatDuration(turn.duration)}` : "",
      ].filter(Boolean);
      note([words.paintState(cli, words.turnStatus.word(turn.status)), ...how].join(" · "));
    },
  };
}
