import { waitForRun } from "@pinion/client";
import { type Run, RunStatus } from "#gen/pinion/v1/run_pb.js";
import type { Clients } from "../context.ts";
import type { DeviceLog, LoggedEvent } from "../device/log.ts";
import { formatLength } from "../print/lengths.ts";
import * as words from "../print/words.ts";
import type { UpView } from "./view.ts";

/** Runs of an earlier start that are looked for; a device has a handful at once. */
const activeRunsMax = 100;

/** In place of a watcher's name. */
const turnName = "turn";

type LaterRunsOptions = {
  clients: Clients;
  deviceId: string;
  deviceLog: DeviceLog;
  view: UpView;
  /** Fires at Ctrl-C. From then on the device's log alone says how runs end, since the server is about to stop. */
  signal: AbortSignal;
};

/** A run that the device has, and of which watcher it is. */
type Active = { runId: string; watcher: string };

/** The runs on this device: which are under way, and, once asked to, a line for each start and each end. */
export class LaterRuns {
  readonly #options: LaterRunsOptions;
  /** Of the device's log, by run id. */
  readonly #active = new Map<string, Active>();
  readonly #followed = new Set<string>();
  readonly #stopped: string[] = [];
  #isShown = false;

  constructor(options: LaterRunsOptions) {
    this.#options = options;
    options.deviceLog.onEvent((event) => this.#take(event));
  }

  /** What runs right now. */
  get active(): Active[] {
    return [...this.#active.values()];
  }

  /** The runs that were under way at Ctrl-C and did not complete. */
  get stopped(): readonly string[] {
    return this.#stopped;
  }

  /** From here on each run has its lines, those that are under way already too. */
  async show(): Promise<void> {
    const { clients, deviceId } = this.#options;
    this.#isShown = true;
    const statuses = [RunStatus.CLAIMED, RunStatus.RUNNING];
    const { runs } = await clients.runs.listRuns({ deviceId, statuses, pageSize: activeRunsMax });
    for (const run of runs) {
      this.#active.set(run.id, { runId: run.id, watcher: run.watcherSlug || "run" });
      this.#follow(run.id);
    }
  }

  #take(event: LoggedEvent): void {
    const { view, signal } = this.#options;
    if (event.type === "configured") {
      view.note(
        event.problem
          ? `device.toml is wrong, and the one before it stays in force: ${event.problem}`
          : "device.toml was read again",
      );
    }
    if (event.type === "connected" && this.#isShown) view.note("the device is connected again");
    if (event.type === "disconnected" && this.#isShown && !signal.aborted)
      view.note(`the device lost its stream: ${event.reason}`);
    if (event.run_id === undefined) return;
    const runId = event.run_id;
    switch (event.type) {
      case "assignment":
        // A turn of a conversation comes without a watcher, and its id names no run.
        this.#active.set(runId, { runId, watcher: event.watcher || turnName });
        if (!this.#isShown) return;
        if (event.watcher) {
          view.note(`${event.watcher} started: run ${runId}`);
          this.#follow(runId);
        } else view.note(`turn ${runId} started`);
        return;
      case "rejected":
        this.#active.delete(runId);
        if (this.#isShown) view.note(`run ${runId} was turned down: ${event.message || event.reason}`);
        return;
      case "finished":
        if (signal.aborted) this.#stoppedWith(event, runId);
        else if (this.#isShown && this.#active.get(runId)?.watcher === turnName)
          view.note(`turn ${runId} ${event.result?.outcome ?? "ended"}`);
        this.#active.delete(runId);
        return;
      case "cancelled":
      case "aborted":
        this.#active.delete(runId);
        return;
      default:
    }
  }

  #stoppedWith(event: LoggedEvent, runId: string): void {
    const watcher = this.#active.get(runId)?.watcher ?? (event.watcher || "run");
    const { outcome = "failed", reason } = event.result ?? {};
    if (outcome !== "completed") this.#stopped.push(runId);
    this.#options.view.note(`${watcher} ${outcome}${reason ? `: ${reason}` : ""}: run ${runId}`);
  }

  /** Says how the run ended, as the server has it: it also knows of runs that the device lost. */
  #follow(runId: string): void {
    if (this.#followed.has(runId)) return;
    this.#followed.add(runId);
    const { clients, view, signal } = this.#options;
    waitForRun(clients, runId, { signal })
      .then(
        (run) => {
          if (!signal.aborted) view.note(endOf(run));
        },
        (error: unknown) => {
          if (!signal.aborted) view.note(`run ${runId} is out of sight: ${String(error)}`);
        },
      )
      .finally(() => {
        this.#active.delete(runId);
        this.#followed.delete(runId);
      });
  }
}

/** How a run ended, on one line. */
export function endOf(run: Run): string {
  const status = words.runStatus.word(run.status);
  const name = `${run.watcherSlug || "run"} ${status}`;
  if (run.status === RunStatus.COMPLETED) {
    const took = run.duration
      ? ` in ${formatLength(Number(run.duration.seconds) * 1000 + run.duration.nanos / 1e6)}`
      : "";
    return `${name}${took}: run ${run.id}`;
  }
  const [reason = ""] = run.reason.split("\n");
  return `${name}${reason ? `: ${reason}` : ""}: run ${run.id}  (pinion runs explain ${run.id})`;
}
