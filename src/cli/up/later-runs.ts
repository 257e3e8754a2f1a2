import { waitForRun } from "@pinion/client";
import { type Run, RunStatus } from "#gen/pinion/v1/run_pb.js";
import type { Clients } from "../context.ts";
import type { DeviceLog, LoggedEvent } from "../device/log.ts";
import { formatLength } from "../print/lengths.ts";
import * as words from "../print/words.ts";
import type { UpView } from "./view.ts";

/** Maximum of runs of an earlier start; a device has only a few at once. */
const activeRunsMax = 100;

/** Name for a turn, in place of a watcher's. */
const turnName = "turn";

type LaterRunsOptions = {
  clients: Clients;
  deviceId: string;
  deviceLog: DeviceLog;
  view: UpView;
  /**
   * Fires at Ctrl-C. From then on the device's log reports the end of runs, because the server is
   * stopping.
   */
  signal: AbortSignal;
};

/** A run on the device, with its watcher. */
type Active = { runId: string; watcher: string };

/**
 * The runs on this device: the active runs, and, after `show`, a line for each start and each end.
 */
export class LaterRuns {
  readonly #options: LaterRunsOptions;
  /** Active runs in the device's log, by run id. */
  readonly #active = new Map<string, Active>();
  readonly #followed = new Set<string>();
  readonly #stopped: string[] = [];
  #isShown = false;

  constructor(options: LaterRunsOptions) {
    this.#options = options;
    options.deviceLog.onEvent((event) => this.#take(event));
  }

  /** The active runs. */
  get active(): Active[] {
    return [...this.#active.values()];
  }

  /** Runs active at Ctrl-C and not completed. */
  get stopped(): readonly string[] {
    return this.#stopped;
  }

  /** Shows lines for each run from now on, including the active runs. */
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
    if (event.work_id === undefined) return;
    const runId = event.work_id;
    switch (event.type) {
      case "assignment":
        // A conversation's turn has no watcher, and its id is not a run's id.
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

  /** Reports the end of the run from the server, which also knows of runs lost on the device. */
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

/** The end of a run on one line. */
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
