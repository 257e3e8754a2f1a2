import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { isEnded, waitForRun } from "@pinion/client";
import {
  type Run,
  type RunActivity,
  type RunOutput,
  RunStatus,
  WatchRunResponseSchema,
} from "#gen/pinion/v1/run_pb.js";
import type { Cli } from "../../cli.ts";
import type { Clients } from "../../context.ts";
import { formatUsage } from "../../print/budget.ts";
import { printJsonLine } from "../../print/json.ts";
import { runOutput } from "../../print/run-details.ts";
import { plain } from "../../print/table.ts";
import { formatDuration } from "../../print/times.ts";
import { activityLine } from "../../print/transcript.ts";
import * as words from "../../print/words.ts";

/**
 * Follows a run to its end, over any number of streams: output on standard output and states on
 * standard error, or every update as a line of JSON. Resolves to the ended run; to undefined if the
 * signal came first. Fails at once if the server is not reachable at the start.
 */
export async function watchRun(
  cli: Cli,
  clients: Clients,
  id: string,
  options: { asJson: boolean; signal: AbortSignal },
): Promise<Run | undefined> {
  // `waitForRun` survives an unreachable server, so reachability is checked first.
  await clients.runs.getRun({ runId: id });
  const view = options.asJson ? new JsonView(cli) : new RunView(cli);
  try {
    const run = await waitForRun(clients, id, {
      signal: options.signal,
      onRun: (run) => view.showRun(run),
      onOutput: (output) => view.showOutput(output),
      onActivity: (activity) => view.showActivity(activity),
    });
    await view.showEnd(clients, run);
    return run;
  } catch (error) {
    if (options.signal.aborted) return undefined;
    throw error;
  }
}

/** Updates of a run for programs: the stream's own messages. */
class JsonView {
  readonly #cli: Cli;

  constructor(cli: Cli) {
    this.#cli = cli;
  }

  showRun(run: Run): void {
    this.#print({ case: "run", value: run });
  }

  showOutput(output: RunOutput): void {
    this.#print({ case: "output", value: output });
  }

  showActivity(activity: RunActivity): void {
    this.#print({ case: "activity", value: activity });
  }

  async showEnd(): Promise<void> {}

  #print(update: NonNullable<MessageInitShape<typeof WatchRunResponseSchema>["update"]>): void {
    printJsonLine(this.#cli, WatchRunResponseSchema, create(WatchRunResponseSchema, { update }));
  }
}

/** Updates of a run for people. */
class RunView {
  readonly #cli: Cli;
  #shown = "";
  #isAtLineStart = true;
  #sequence = 0n;
  #attempt = 0;
  /** The agent sends activities; the output repeats these and is not shown live. */
  #tells = false;
  /** The agent's last text, in pieces of one message. */
  #said = { messageId: "", text: "" };

  constructor(cli: Cli) {
    this.#cli = cli;
  }

  showRun(run: Run): void {
    if (isEnded(run)) return;
    const line = [
      words.paintState(this.#cli, words.runStatus.word(run.status)),
      run.status === RunStatus.PENDING ? "waits for its executor" : "",
      run.attempt > 1 ? `attempt ${run.attempt} of ${run.maxAttempts}` : "",
      run.cancelRequestedAt ? "cancel asked for" : "",
      run.openQuestions > 0 ? `its agent asks: pinion runs answer ${run.id}` : "",
      plain(run.reason),
    ]
      .filter(Boolean)
      .join(" · ");
    if (line === this.#shown) return;
    this.#shown = line;
    this.#note(line);
  }

  showOutput(output: RunOutput): void {
    if (output.attempt !== this.#attempt) this.#sequence = 0n;
    this.#attempt = output.attempt;
    if (output.sequence <= this.#sequence) return;
    const missed = output.sequence - this.#sequence - 1n;
    if (missed > 0n && !this.#tells)
      this.#note(this.#cli.colors.dim(`${missed} pieces of output before this were not seen live`));
    this.#sequence = output.sequence;
    if (this.#tells) return;
    this.#cli.program(output.data);
    this.#isAtLineStart = output.data.at(-1) === 0x0a;
  }

  /** Activities are shown between the states; the answer follows at the end. */
  showActivity({ activity }: RunActivity): void {
    this.#tells = true;
    const line = activity && activityLine(this.#cli, activity);
    if (line) this.#note(line);
    if (activity?.body.case !== "text") return;
    const { messageId, text } = activity.body.value;
    const isMore = messageId !== "" && messageId === this.#said.messageId;
    this.#said = { messageId, text: isMore ? this.#said.text + text : text };
  }

  async showEnd(clients: Clients, run: Run): Promise<void> {
    if (this.#sequence === 0n || run.hasTranscript) {
      const output = await runOutput(clients, run);
      // A terminal already shows the answer as the agent's last text.
      const isShown = this.#cli.isTerminal && this.#said.text.trim() === output.trim();
      if (output && !isShown) {
        this.#cli.program(output);
        this.#isAtLineStart = output.endsWith("\n");
      }
    }
    const how = [
      words.skipReason.word(run.skipReason),
      plain(run.reason),
      run.exitCode ? `exit code ${run.exitCode}` : "",
      plain(run.signal),
      run.attention.map((reason) => words.attention.word(reason)).join(", "),
      formatUsage(run.usage),
      run.duration ? `took ${formatDuration(run.duration)}` : "",
      run.windowId ? `window ${run.windowId}` : "",
    ].filter(Boolean);
    this.#note([words.paintState(this.#cli, words.runStatus.word(run.status)), ...how].join(" · "));
  }

  #note(line: string): void {
    // On a terminal both streams share the screen, so a state starts on a new line.
    if (!this.#isAtLineStart && this.#cli.isTerminal) this.#cli.raw("\n");
    this.#isAtLineStart = true;
    this.#cli.note(line);
  }
}
