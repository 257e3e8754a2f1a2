/** `pinion top`: fleet and runs in the terminal, as they change. */
import { setTimeout as sleep } from "node:timers/promises";
import type { Command } from "commander";
import { type Cli, examples } from "../cli.ts";
import { type Clients, connect } from "../context.ts";
import { exitCodes, Failure } from "../failures.ts";
import { plain, plainLines } from "../print/table.ts";
import { formatAgo, formatMoment } from "../print/times.ts";
import * as words from "../print/words.ts";
import { draw } from "./draw.ts";
import { keysOf } from "./keys.ts";
import { type Effect, emptyState, press, type TopState } from "./state.ts";

/** Bounds of the lists: what fits on a screen many times over. */
const runsMax = 300;
const devicesMax = 500;
/** Least time in ms between two readings; events in between are read together. */
const readingMsMin = 400;
/** Ages are drawn anew in this interval, in ms. */
const redrawMs = 1_000;
const reconnectMs = 1_000;
/** Output of a run in the detail, in characters; the end is shown. */
const outputCharactersMax = 20_000;

export function addTop(program: Command, cli: Cli): void {
  const top = program
    .command("top")
    .description(
      "devices and runs live in the terminal: j/k move, enter opens, c cancels, / filters, q quits",
    )
    .action(async (_options, command: Command) => {
      const { clients, options, url } = connect(cli, command);
      if (options.json || !cli.isTerminal || !process.stdin.isTTY) {
        throw new Failure(
          exitCodes.usage,
          "`pinion top` draws on a terminal",
          "`pinion runs watch --json` and `pinion events --follow --json` are for programs",
        );
      }
      // A wrong address or token is told as elsewhere, before the screen is taken.
      const first = await read(clients);
      await new Top(cli, clients, url, first).run();
    });
  examples(top, [
    ["top", "everything of the org"],
    ["top --context work", "of another server"],
  ]);
}

async function read(clients: Clients): Promise<Pick<TopState, "devices" | "runs">> {
  const [{ devices }, { runs }] = await Promise.all([
    clients.fleet.listDevices({ pageSize: devicesMax }),
    clients.runs.listRuns({ pageSize: runsMax }),
  ]);
  return { devices: devices.sort((a, b) => a.label.localeCompare(b.label)), runs };
}

class Top {
  readonly #cli: Cli;
  readonly #clients: Clients;
  readonly #url: string;
  readonly #stop = new AbortController();
  #state: TopState;
  #isStale = false;
  #isReading = false;

  constructor(cli: Cli, clients: Clients, url: string, first: Pick<TopState, "devices" | "runs">) {
    this.#cli = cli;
    this.#clients = clients;
    this.#url = url;
    this.#state = { ...emptyState, ...first };
  }

  async run(): Promise<void> {
    const { stdin, stdout } = process;
    const onInput = (input: string) => this.#typed(input);
    const onResize = () => this.#show();
    const stop = () => this.#stop.abort();
    const timer = setInterval(() => this.#show(), redrawMs);
    process.on("SIGTERM", stop).on("SIGINT", stop).on("SIGHUP", stop);
    stdout.on("resize", onResize);
    stdin.setRawMode(true).setEncoding("utf8").resume().on("data", onInput);
    // The other screen, without a cursor.
    this.#cli.raw("\u001b[?1049h\u001b[?25l");
    try {
      this.#show();
      await this.#follow();
    } finally {
      clearInterval(timer);
      process.off("SIGTERM", stop).off("SIGINT", stop);
      stdout.off("resize", onResize);
      stdin.off("data", onInput).setRawMode(false).pause();
      this.#cli.raw("\u001b[?25h\u001b[?1049l");
    }
  }

  /** The stream of events says when to read again; nothing is polled. */
  async #follow(): Promise<void> {
    const { signal } = this.#stop;
    while (!signal.aborted) {
      try {
        const stream = this.#clients.events.watchEvents({ includeTransient: true }, { signal });
        for await (const { update } of stream) {
          if (!this.#state.isLive) this.#change({ isLive: true });
          // The first message also ends a gap: what happened before is read.
          if (update.case !== "cursor" || this.#isStale) this.#refresh();
        }
      } catch {
        // Told by "reconnecting".
      }
      if (signal.aborted) return;
      this.#isStale = true;
      this.#change({ isLive: false });
      await sleep(reconnectMs, undefined, { signal }).catch(() => {});
    }
  }

  #refresh(): void {
    this.#isStale = true;
    if (!this.#isReading) void this.#readAll();
  }

  async #readAll(): Promise<void> {
    this.#isReading = true;
    while (this.#isStale && !this.#stop.signal.aborted) {
      this.#isStale = false;
      try {
        this.#change(await read(this.#clients));
      } catch (error) {
        this.#isStale = true;
        this.#change({ message: plain((error as Error).message) });
      }
      await sleep(readingMsMin, undefined, { signal: this.#stop.signal }).catch(() => {});
    }
    this.#isReading = false;
  }

  #typed(input: string): void {
    for (const key of keysOf(input)) {
      const { state, effect } = press(this.#state, key);
      this.#state = state;
      if (effect) void this.#do(effect);
    }
    this.#show();
  }

  async #do(effect: Effect): Promise<void> {
    try {
      if (effect.kind === "quit") this.#stop.abort();
      else if (effect.kind === "cancel") {
        await this.#clients.runs.cancelRun({ runId: effect.runId });
        this.#change({ message: `run ${effect.runId.slice(-8)} is asked to end` });
        this.#refresh();
      } else if (effect.pane === "runs") await this.#openRun(effect.id);
      else this.#openDevice(effect.id);
    } catch (error) {
      this.#change({ message: plain((error as Error).message) });
    }
  }

  async #openRun(runId: string): Promise<void> {
    const [{ run }, explained] = await Promise.all([
      this.#clients.runs.getRun({ runId }),
      this.#clients.runs.explainRun({ runId }),
    ]);
    if (!run) return;
    const label = this.#state.devices.find(({ id }) => id === run.deviceId)?.label ?? run.deviceId;
    const said = plainLines((run.result || run.outputTail).slice(-outputCharactersMax));
    const lines = [
      `${words.runStatus.word(run.status)} on ${plain(label) || "no device"}, due ${formatMoment(run.dueAt)} (${formatAgo(run.dueAt)})`,
      ...plainLines(explained.summary).split("\n"),
      "",
      ...(said === "" ? ["no output yet"] : said.split("\n").map((line) => line.replaceAll("\t", "  "))),
    ];
    this.#change({ mode: "detail", detail: { title: `${run.watcherSlug} ${run.id}`, lines, top: 0 } });
  }

  /** The runs of a device are the runs after a filter by its label. */
  #openDevice(id: string): void {
    const label = this.#state.devices.find((device) => device.id === id)?.label;
    if (label !== undefined) this.#change({ pane: "runs", filter: plain(label) });
  }

  #change(changes: Partial<TopState>): void {
    this.#state = { ...this.#state, ...changes };
    this.#show();
  }

  #show(): void {
    if (this.#stop.signal.aborted) return;
    const { columns = 80, rows = 24 } = process.stdout;
    const lines = draw(this.#cli, this.#state, { columns, rows, now: Date.now(), url: this.#url });
    // Each line is written over the old line, and the rest of it cleared: nothing flickers.
    this.#cli.raw(`\u001b[H${lines.map((line) => `${line}\u001b[K`).join("\r\n")}\u001b[J`);
  }
}
