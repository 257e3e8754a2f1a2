import { type OutputStream, type Run, RunStatus, WatchRunResponseSchema } from "#gen/pinion/v1/run_pb.js";
import type { Cli } from "./cli.ts";
import type { Clients } from "./context.ts";
import { exitCodes, Failure } from "./failures.ts";
import { printJsonLine } from "./json.ts";
import { runOutput } from "./run-details.ts";
import { plain } from "./table.ts";
import { formatDuration } from "./times.ts";
import * as words from "./words.ts";

/**
 * Follows a run to its end: its output on standard output, its states on standard error, or every message as a line of
 * JSON. Resolves to the ended run; to undefined if the signal ended the watching first.
 */
export async function watchRun(
  cli: Cli,
  clients: Clients,
  id: string,
  options: { asJson: boolean; signal: AbortSignal },
): Promise<Run | undefined> {
  // Breaking out of the loop does not end the call; this does.
  const call = new AbortController();
  const view = new RunView(cli);
  let run: Run | undefined;
  try {
    for await (const message of clients.runs.watchRun(
      { runId: id },
      { signal: AbortSignal.any([call.signal, options.signal]) },
    )) {
      if (options.asJson) printJsonLine(cli, WatchRunResponseSchema, message);
      if (message.update.case === "run") {
        run = message.update.value;
        if (!options.asJson) view.showRun(run);
      } else if (message.update.case === "output" && !options.asJson) {
        view.showOutput(message.update.value);
      }
    }
  } catch (error) {
    if (options.signal.aborted) return undefined;
    throw error;
  } finally {
    call.abort();
  }
  if (options.signal.aborted) return undefined;
  if (!run || !words.hasEnded(run.status)) {
    throw new Failure(
      exitCodes.unreachable,
      "the server ended the watch before the run's end",
      `\`pinion runs watch ${id}\` goes on`,
    );
  }
  if (!options.asJson) await view.showEnd(clients, run);
  return run;
}

/** What a person sees of a run while it goes on. */
class RunView {
  readonly #cli: Cli;
  #shown = "";
  #hasOutput = false;
  #isAtLineStart = true;
  #sequence = 0n;

  constructor(cli: Cli) {
    this.#cli = cli;
  }

  showRun(run: Run): void {
    if (words.hasEnded(run.status)) return;
    const word = words.runStatus.word(run.status);
    const line = [
      words.paintState(this.#cli, word),
      run.status === RunStatus.PENDING ? "waits for its executor" : "",
      run.attempt > 1 ? `attempt ${run.attempt} of ${run.maxAttempts}` : "",
      run.cancelRequestedAt ? "cancel asked for" : "",
      plain(run.reason),
    ]
      .filter(Boolean)
      .join(" · ");
    if (line === this.#shown) return;
    this.#shown = line;
    this.#note(line);
  }

  showOutput(output: { sequence: bigint; stream: OutputStream; data: Uint8Array }): void {
    if (this.#sequence > 0n && output.sequence > this.#sequence + 1n) {
      this.#note(
        this.#cli.colors.dim(
          `${output.sequence - this.#sequence - 1n} pieces of output were dropped on the way`,
        ),
      );
    }
    this.#sequence = output.sequence;
    this.#hasOutput = true;
    this.#cli.raw(output.data);
    this.#isAtLineStart = output.data.at(-1) === 0x0a;
  }

  async showEnd(clients: Clients, run: Run): Promise<void> {
    if (!this.#hasOutput) {
      const output = await runOutput(clients, run);
      if (output) {
        this.#cli.raw(output);
        this.#isAtLineStart = output.endsWith("\n");
      }
    }
    const how = [
      words.skipReason.word(run.skipReason),
      plain(run.reason),
      run.exitCode ? `exit code ${run.exitCode}` : "",
      run.signal,
      run.duration ? `took ${formatDuration(run.duration)}` : "",
      run.windowId ? `window ${run.windowId}` : "",
    ].filter(Boolean);
    this.#note([words.paintState(this.#cli, words.runStatus.word(run.status)), ...how].join(" · "));
  }

  #note(line: string): void {
    // On a terminal both streams share the screen: a state never continues a line of output.
    if (!this.#isAtLineStart && this.#cli.isTerminal) this.#cli.raw("\n");
    this.#isAtLineStart = true;
    this.#cli.note(line);
  }
}
