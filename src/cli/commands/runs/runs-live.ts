import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { isEnded, waitForRun } from "@pinion/client";
import { type Run, type RunOutput, RunStatus, WatchRunResponseSchema } from "#gen/pinion/v1/run_pb.js";
import type { Cli } from "../../cli.ts";
import type { Clients } from "../../context.ts";
import { asJson } from "../../print/json.ts";
import { plain } from "../../print/table.ts";
import { formatDuration } from "../../print/times.ts";
import { cut, displayWidth } from "../../print/width.ts";
import * as words from "../../print/words.ts";

/** `pinion runs watch` without a run: all runs of the org, a watcher or a device, live. */

export type LiveFilter = { watcherId: string; deviceId: string };

/** Maximum of runs followed at once; a further run is followed later, or only its end is shown. */
const followedMax = 32;
const activeStatuses = [RunStatus.PENDING, RunStatus.CLAIMED, RunStatus.RUNNING];
/** Maximum of remembered ended runs. */
const endedMax = 1_000;
/** Redraw interval on a terminal, in ms. */
const redrawMs = 500;
/** Maximum bytes of an unfinished output line. */
const lineBytesMax = 16_384;

/**
 * Follows runs until the signal fires or the event stream breaks (an error). Events announce new
 * runs; a stream per run gives states and output.
 */
export async function watchRuns(
  cli: Cli,
  clients: Clients,
  options: { filter: LiveFilter; asJson: boolean; labels: Map<string, string>; signal: AbortSignal },
): Promise<void> {
  const { filter, signal } = options;
  const view = viewOf(cli, options);
  const runs = new FollowedRuns(clients, view, signal);
  const isWanted = (run: { watcherId: string; deviceId: string }) =>
    (filter.watcherId === "" || run.watcherId === filter.watcherId) &&
    (filter.deviceId === "" || run.deviceId === filter.deviceId);
  try {
    const events = clients.events.watchEvents({ kinds: ["run."] }, { signal });
    for await (const { update } of events) {
      if (update.case === "cursor") {
        // At the start and after every 15 s of silence: runs started before, or without a free slot
        // until now.
        const request = { ...filter, statuses: activeStatuses, pageSize: 500 };
        const active = await clients.runs.listRuns(request);
        view.begin();
        for (const run of active.runs.toReversed()) runs.follow(run.id);
      } else if (update.case === "event" && update.value.runId && isWanted(update.value)) {
        const { runId } = update.value;
        if (runs.knows(runId)) continue;
        const { run } = await clients.runs.getRun({ runId });
        if (!run || !isWanted(run)) continue;
        if (isEnded(run)) runs.show(run);
        else runs.follow(runId);
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    view.close();
  }
}

/** The runs with a stream of their own, and the latest ended ones. */
class FollowedRuns {
  readonly #clients: Clients;
  readonly #view: View;
  readonly #signal: AbortSignal;
  readonly #followed = new Set<string>();
  /** Ended runs: a run's last event may arrive after the end of its stream. */
  readonly #ended = new Set<string>();

  constructor(clients: Clients, view: View, signal: AbortSignal) {
    this.#clients = clients;
    this.#view = view;
    this.#signal = signal;
  }

  knows(runId: string): boolean {
    return this.#followed.has(runId) || this.#ended.has(runId);
  }

  follow(runId: string): void {
    if (this.#followed.has(runId) || this.#followed.size >= followedMax) return;
    this.#followed.add(runId);
    waitForRun(this.#clients, runId, {
      signal: this.#signal,
      onRun: (run) => this.show(run),
      onOutput: (output) => this.#view.showOutput(runId, output),
    })
      // The next event of the run follows the run again; the event stream goes on.
      .catch(() => {})
      .finally(() => this.#followed.delete(runId));
  }

  show(run: Run): void {
    if (this.#ended.has(run.id)) return;
    if (isEnded(run)) {
      this.#ended.add(run.id);
      const [oldest] = this.#ended;
      if (this.#ended.size > endedMax && oldest !== undefined) this.#ended.delete(oldest);
    }
    this.#view.showRun(run);
  }
}

function viewOf(cli: Cli, options: { asJson: boolean; labels: Map<string, string> }): View {
  if (options.asJson) return new JsonLines(cli);
  if (cli.isTerminal && cli.env.TERM !== "dumb") return new LiveLines(cli, options.labels);
  return new PlainLines(cli, options.labels);
}

interface View {
  begin(): void;
  showRun(run: Run): void;
  showOutput(runId: string, output: RunOutput): void;
  close(): void;
}

/** For programs: a line for every update, with the id of its run. */
class JsonLines implements View {
  readonly #cli: Cli;

  constructor(cli: Cli) {
    this.#cli = cli;
  }

  begin(): void {}
  close(): void {}

  showRun(run: Run): void {
    this.#print(run.id, { case: "run", value: run });
  }

  showOutput(runId: string, output: RunOutput): void {
    this.#print(runId, { case: "output", value: output });
  }

  #print(
    runId: string,
    update: NonNullable<MessageInitShape<typeof WatchRunResponseSchema>["update"]>,
  ): void {
    const message = asJson(WatchRunResponseSchema, create(WatchRunResponseSchema, { update })) as object;
    this.#cli.out(JSON.stringify({ run_id: runId, ...message }));
  }
}

/** For people: a line for every state of a run, and its output after the watcher's name. */
class PlainLines implements View {
  protected readonly cli: Cli;
  readonly #labels: Map<string, string>;
  /** Shown state of each active run. */
  readonly #runs = new Map<
    string,
    { state: string; watcher: string; rest: Buffer; attempt: number; sequence: bigint }
  >();
  #hasBegun = false;

  constructor(cli: Cli, labels: Map<string, string>) {
    this.cli = cli;
    this.#labels = labels;
  }

  begin(): void {
    if (!this.#hasBegun)
      this.cli.note(this.cli.colors.dim("watching runs; Ctrl-C ends the watching, not the runs"));
    this.#hasBegun = true;
  }

  close(): void {}

  showRun(run: Run): void {
    const shown = this.#runs.get(run.id);
    const state = `${run.status} ${run.attempt} ${run.cancelRequestedAt ? "cancel" : ""}`;
    if (shown?.state === state) return;
    const kept = { state, watcher: run.watcherSlug || run.watcherId };
    this.#runs.set(run.id, { rest: Buffer.alloc(0), attempt: 0, sequence: 0n, ...shown, ...kept });
    if (isEnded(run)) this.#flush(run.id);
    this.line(this.describe(run));
    if (isEnded(run)) this.#runs.delete(run.id);
  }

  showOutput(runId: string, output: RunOutput): void {
    const run = this.#runs.get(runId);
    if (!run) return;
    if (output.attempt !== run.attempt) run.sequence = 0n;
    run.attempt = output.attempt;
    // A restarted stream repeats the kept output.
    if (output.sequence <= run.sequence) return;
    run.sequence = output.sequence;
    run.rest = Buffer.concat([run.rest, output.data]);
    for (let at = run.rest.indexOf(0x0a); at >= 0; at = run.rest.indexOf(0x0a)) {
      this.#outputLine(run.watcher, run.rest.subarray(0, at));
      run.rest = run.rest.subarray(at + 1);
    }
    if (run.rest.length > lineBytesMax) this.#flush(runId);
  }

  #flush(runId: string): void {
    const run = this.#runs.get(runId);
    if (!run || run.rest.length === 0) return;
    this.#outputLine(run.watcher, run.rest);
    run.rest = Buffer.alloc(0);
  }

  #outputLine(watcher: string, bytes: Uint8Array): void {
    const text = plain(Buffer.from(bytes).toString("utf8"));
    this.line(`${this.cli.colors.dim(`${plain(watcher)} │`)} ${text}`);
  }

  /** A run as one line. */
  protected describe(run: Run, now = Date.now()): string {
    const { bold, dim } = this.cli.colors;
    const word = words.runStatus.word(run.status);
    const parts = [
      words.paintState(this.cli, word) + " ".repeat(Math.max(0, 9 - word.length)),
      bold(plain(run.watcherSlug || run.watcherId)),
      run.deviceId ? `on ${plain(this.#labels.get(run.deviceId) ?? run.deviceId)}` : "",
      run.attempt > 1 ? `attempt ${run.attempt} of ${run.maxAttempts}` : "",
      run.cancelRequestedAt && !isEnded(run) ? "cancel asked for" : "",
      timeOf(run, now),
      words.skipReason.word(run.skipReason),
      plain(run.reason),
      dim(run.id),
    ];
    return parts.filter(Boolean).join("  ");
  }

  /** Prints a permanent line. */
  protected line(text: string): void {
    this.cli.out(text);
  }
}

/** On a terminal: the same, with a live line for each active run below. */
class LiveLines extends PlainLines {
  readonly #living = new Map<string, Run>();
  readonly #timer: NodeJS.Timeout;
  #drawn = 0;

  constructor(cli: Cli, labels: Map<string, string>) {
    super(cli, labels);
    this.#timer = setInterval(() => this.#redraw(), redrawMs);
  }

  override showRun(run: Run): void {
    if (isEnded(run)) {
      this.#living.delete(run.id);
      super.showRun(run);
    } else {
      this.#living.set(run.id, run);
      this.#remember(run);
    }
    this.#redraw();
  }

  /** Active runs are shown below, so their states need no permanent lines. */
  #remember(run: Run): void {
    this.#isQuiet = true;
    super.showRun(run);
    this.#isQuiet = false;
  }

  #isQuiet = false;

  override close(): void {
    clearInterval(this.#timer);
    this.#erase();
  }

  protected override line(text: string): void {
    if (this.#isQuiet) return;
    this.#erase();
    super.line(text);
    this.#redraw();
  }

  #redraw(): void {
    this.#erase();
    const now = Date.now();
    const lines = [...this.#living.values()].map((run) => this.#fitted(`● ${this.describe(run, now)}`));
    for (const line of lines) this.cli.raw(`${line}\n`);
    this.#drawn = lines.length;
  }

  /** A wrapped line could not be erased. */
  #fitted(line: string): string {
    if (displayWidth(line) < this.cli.columns) return line;
    return cut(plain(line), this.cli.columns - 1);
  }

  #erase(): void {
    // Moves up to the first live line and clears the rest of the screen.
    if (this.#drawn > 0) this.cli.raw(`\x1b[${this.#drawn}A\x1b[0J`);
    this.#drawn = 0;
  }
}

/** The run's duration, or the time since its start. */
function timeOf(run: Run, now: number): string {
  if (run.duration) return `took ${formatDuration(run.duration)}`;
  if (isEnded(run) || !run.startedAt) return "";
  return `for ${Math.max(0, Math.round(now / 1_000 - Number(run.startedAt.seconds)))} s`;
}
