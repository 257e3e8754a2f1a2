import { timestampMs } from "@bufbuild/protobuf/wkt";
import { isNotFound, waitForRun } from "@pinion/client";
import { OutputStream, type Run, type RunOutput } from "#gen/pinion/v1/run_pb.js";
import type { Watcher } from "#gen/pinion/v1/watcher_pb.js";
import type { Clients } from "../context.ts";
import { reportKind } from "../device/config.ts";
import type { DeviceLog, LoggedEvent } from "../device/log.ts";
import { exitCodes, Failure, told } from "../failures.ts";
import { formatLength } from "../print/lengths.ts";
import { runOutput } from "../print/run-details.ts";
import * as words from "../print/words.ts";
import { type Milestone, round, type UpView } from "./view.ts";

/** Created by the server for the first desktop device of an org. */
const defaultWatcherSlug = "daily-checkin";
/** Slug of our own watcher, used if the default watcher was deleted or has another device. */
const ownWatcherSlug = "machine-report";
/**
 * Maximum wait for the acknowledgement in the device's log, in ms. The acknowledgement precedes the
 * visible end of the run.
 */
const acknowledgementMsMax = 2_000;

/** The last line of `up --once --json`. Times are null if this device did not see the event. */
export type FirstRun = {
  run_id: string;
  status: string;
  window_id: string;
  /**
   * Time in ms from the run's due time (the database's clock) to the arrival of its assignment at
   * the device.
   */
  push_ms: number | null;
  /** Time in ms from the end of the program to the acknowledgement of the committed result. */
  store_ms: number | null;
  output: string;
  reason: string;
  watcher: string;
  device_id: string;
};

/**
 * The watcher of the first run: the default watcher if pinned to this device, otherwise our own
 * free watcher.
 */
export async function firstWatcher(clients: Clients, deviceId: string): Promise<Watcher> {
  const byDefault = await findWatcher(clients, defaultWatcherSlug);
  if (byDefault?.spec?.deviceId === deviceId) return byDefault;
  const own = await findWatcher(clients, ownWatcherSlug);
  if (own?.spec?.deviceId === deviceId) return own;
  if (own) {
    const answer = await clients.watchers.updateWatcher({
      watcherId: own.id,
      spec: { deviceId },
      updateMask: { paths: ["device_id"] },
    });
    return told(answer.watcher, "watcher");
  }
  const answer = await clients.watchers.createWatcher({
    slug: ownWatcherSlug,
    spec: {
      name: "Machine report",
      prompt: "Report on this machine and on the repository that you were started in.",
      deviceId,
      agentKind: reportKind,
      maxAttempts: 1,
    },
  });
  return told(answer.watcher, "watcher");
}

async function findWatcher(clients: Clients, slug: string): Promise<Watcher | undefined> {
  try {
    return (await clients.watchers.getWatcher({ watcherId: slug })).watcher;
  } catch (error) {
    if (isNotFound(error)) return undefined;
    throw error;
  }
}

type FollowOptions = {
  clients: Clients;
  watcher: Watcher;
  deviceLog: DeviceLog;
  view: UpView;
  signal: AbortSignal;
  /** Time limit in ms; undefined: none. */
  withinMs: number | undefined;
};

/**
 * Triggers the watcher and shows its run until the result is stored. Throws if the signal fires
 * first.
 */
export async function runFirst({
  clients,
  watcher,
  deviceLog,
  view,
  signal,
  withinMs,
}: FollowOptions): Promise<FirstRun> {
  // The assignment often arrives before the answer to the trigger, so earlier events are kept.
  const early: LoggedEvent[] = [];
  let take = (event: LoggedEvent): void => void early.push(event);
  const stopListening = deviceLog.onEvent((event) => take(event));
  try {
    const answer = await clients.watchers.triggerWatcher({ watcherId: watcher.id }, { signal });
    const id = told(answer.run, "run").id;
    view.run(id, watcher.slug);
    if (answer.alreadyQueued) view.note("this run was active already; it is followed instead of a new one");
    const timeline = new Timeline(view, told(answer.run, "run"));
    take = (event) => timeline.take(event);
    for (const event of early) timeline.take(event);
    const run = await waitWithin(clients, id, { timeline, signal, withinMs });
    if (run.windowId) await timeline.waitForAcknowledgement();
    const output = await runOutput(clients, run);
    timeline.finish(run, output);
    return {
      run_id: run.id,
      status: words.runStatus.word(run.status),
      window_id: run.windowId,
      push_ms: timeline.pushMs,
      store_ms: timeline.storeMs,
      output,
      reason: run.reason,
      watcher: watcher.slug,
      device_id: run.deviceId,
    };
  } finally {
    stopListening();
  }
}

type WaitOptions = { timeline: Timeline; signal: AbortSignal; withinMs: number | undefined };

async function waitWithin(
  clients: Clients,
  id: string,
  { timeline, signal, withinMs }: WaitOptions,
): Promise<Run> {
  const late = withinMs === undefined ? undefined : AbortSignal.timeout(withinMs);
  try {
    return await waitForRun(clients, id, {
      signal: late ? AbortSignal.any([signal, late]) : signal,
      onOutput: (output) => timeline.takeOutput(output),
    });
  } catch (error) {
    if (!late?.aborted || signal.aborted) throw error;
    const why = await clients.runs.explainRun({ runId: id });
    throw new Failure(
      exitCodes.failed,
      `the first run was not stored within ${formatLength(withinMs ?? 0)}: ${why.summary}`,
      why.nextStep || undefined,
    );
  }
}

/**
 * The run's milestones in order, from the faster of two sources: the device's log or the server's
 * relay.
 */
class Timeline {
  readonly #view: UpView;
  readonly #run: Run;
  #lastMs: number;
  #isAccepted = false;
  /** Output received before its milestone; bounded by the relay's buffers. */
  #early: RunOutput[] = [];
  #shownSequence = 0n;
  /** True if a piece was missed: the stored output is shown at the end instead. */
  #hasGap = false;
  #acknowledged = Promise.withResolvers<void>();
  pushMs: number | null = null;
  storeMs: number | null = null;

  constructor(view: UpView, run: Run) {
    this.#view = view;
    this.#run = run;
    this.#lastMs = run.dueAt ? timestampMs(run.dueAt) : Date.now();
    view.milestone("due", undefined, "triggered by hand");
  }

  take(event: LoggedEvent): void {
    if (event.work_id !== this.#run.id) return;
    switch (event.type) {
      case "assignment":
        this.pushMs = round(event.at_ms - (event.fired_at_ms ?? this.#lastMs));
        this.#reach("pushed", event.at_ms, "the assignment reached the device");
        return;
      case "accepted":
        this.#reach("accepted", event.at_ms, "the run is the device's now");
        this.#isAccepted = true;
        for (const output of this.#early.splice(0)) this.#show(output);
        return;
      case "started":
        this.#reach("started", event.at_ms, `${event.executor ?? "its program"}, process ${event.pid}`);
        return;
      case "finished":
        this.#lastMs = Math.max(this.#lastMs, event.at_ms);
        return;
      case "acknowledged":
        this.storeMs = round(event.store_ms ?? 0);
        this.#acknowledged.resolve();
        return;
      default:
    }
  }

  takeOutput(output: RunOutput): void {
    if (this.#isAccepted) this.#show(output);
    else this.#early.push(output);
  }

  async waitForAcknowledgement(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((done) => {
      timer = setTimeout(done, acknowledgementMsMax);
    });
    await Promise.race([this.#acknowledged.promise, late]);
    clearTimeout(timer);
  }

  finish(run: Run, output: string): void {
    for (const early of this.#early.splice(0)) this.#show(early);
    if ((this.#hasGap || this.#shownSequence === 0n) && output) {
      this.#view.milestone("output", undefined, "as it was stored");
      this.#view.output(output);
    }
    const status = words.runStatus.word(run.status);
    const took = run.duration
      ? `${status}, the program took ${formatLength(Number(run.duration.seconds) * 1000 + run.duration.nanos / 1e6)}`
      : status;
    this.#view.milestone("finished", undefined, run.reason ? `${took}: ${run.reason}` : took);
    if (run.windowId) this.#view.milestone("stored", this.storeMs ?? undefined, `window ${run.windowId}`);
  }

  #show(output: RunOutput): void {
    if (output.sequence !== this.#shownSequence + 1n) this.#hasGap = true;
    if (this.#hasGap) return;
    if (this.#shownSequence === 0n) this.#reach("output", Date.now(), "");
    this.#shownSequence = output.sequence;
    if (output.stream === OutputStream.STDOUT) this.#view.output(Buffer.from(output.data).toString("utf8"));
  }

  #reach(milestone: Milestone, atMs: number, text: string): void {
    this.#view.milestone(milestone, atMs - this.#lastMs, text);
    this.#lastMs = atMs;
  }
}
