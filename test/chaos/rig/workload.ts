import { setTimeout as delay } from "node:timers/promises";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import type { Clients } from "@pinion/client";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import type { Random } from "../../support/random.ts";
import { type Caller, setSchedule } from "./calls.ts";

/** A watcher of the rig, and its use in the workload. */
export type RigWatcher = {
  id: string;
  org: string;
  /** The device that its runs are pinned to, or `anyWorker`. */
  device: string;
  every: number | null;
  /** The watcher's schedule is edited; other watchers keep their schedules. */
  isEdited: boolean;
  createdAt: number;
};

export const everySeconds = [5, 6, 10, 12, 15, 20, 30, 60] as const;
const backfillMs = 120_000;

/** In place of a device, in the prompts of watchers without one. */
export const anyWorker = "any worker";

export const promptFor = (device: string, revision: number) => `For ${device}, revision ${revision}: do it.`;

type Options = {
  random: Random;
  clients: ReadonlyMap<string, Clients>;
  watchers: readonly RigWatcher[];
  caller: Caller;
  callsPerSecond: number;
  stop: AbortSignal;
};

/** People and services that trigger, cancel, retry, edit, backfill and read, until stopped. */
export async function runWorkload(options: Options): Promise<void> {
  const { random, stop } = options;
  const workers = Math.max(2, Math.ceil(options.callsPerSecond / 2));
  const asking = new Asking(options);
  await Promise.all(
    Array.from({ length: workers }, async () => {
      while (!stop.aborted) {
        await asking.one();
        await delay((workers / options.callsPerSecond) * 1000 * (0.5 + random.next()));
      }
    }),
  );
}

/** The calls of the workload, each on a watcher at random. */
class Asking {
  readonly #random: Random;
  readonly #caller: Caller;
  readonly #options: Options;
  readonly #editing = new Set<string>();

  constructor(options: Options) {
    this.#random = options.random;
    this.#caller = options.caller;
    this.#options = options;
  }

  async one(): Promise<void> {
    const watcher = this.#random.pick(this.#options.watchers);
    const chance = this.#random.next();
    if (chance < 0.45) await this.#trigger(watcher);
    else if (chance < 0.7) await this.#look(watcher, chance);
    else if (chance < 0.8) await this.#listWindows(watcher);
    else if (chance < 0.85 && watcher.every !== null && !watcher.isEdited) {
      await this.#backfill(watcher, watcher.every * 1000);
    } else await this.#edit(watcher, this.#random.chance(0.5));
  }

  #clients(org: string): Clients {
    return this.#options.clients.get(org)!;
  }

  async #trigger({ org, id }: RigWatcher): Promise<void> {
    await this.#caller.call(
      org,
      { method: "trigger", watcher: id },
      () => this.#clients(org).watchers.triggerWatcher({ watcherId: id }),
      ({ run, alreadyQueued }) => ({ run: run!.id, alreadyQueued, runs: [run!.id] }),
    );
  }

  async #listWindows({ org, id }: RigWatcher): Promise<void> {
    await this.#caller.call(
      org,
      { method: "listWindows", watcher: id },
      () => this.#clients(org).runs.listWindows({ watcherId: id, pageSize: 20 }),
      ({ windows }) => ({ runs: windows.map(({ runId }) => runId) }),
    );
  }

  /**
   * Whole minutes before the creation of the watcher, where the watcher has no slots of its own.
   */
  async #backfill({ org, id, createdAt }: RigWatcher, every: number): Promise<void> {
    const end = Math.floor((createdAt - backfillMs * this.#random.whole(1, 20)) / every) * every;
    const start = end - this.#random.whole(1, 3) * every;
    const span = { start: timestampFromMs(start), end: timestampFromMs(end) };
    await this.#caller.call(
      org,
      { method: "backfill", watcher: id, start, end },
      () => this.#clients(org).watchers.backfillWatcher({ watcherId: id, ...span }),
      () => ({}),
    );
  }

  /** Reads an org's runs, and at times cancels or retries a run. */
  async #look({ org }: RigWatcher, chance: number): Promise<void> {
    const { runs } = this.#clients(org);
    const listed = await this.#caller.call(
      org,
      { method: "listRuns" },
      () => runs.listRuns({ pageSize: 50 }),
      ({ runs }) => ({ runs: runs.map(({ id }) => id) }),
    );
    if (!listed) return;
    const active = listed.runs.filter(({ status }) => isActive(status));
    const failed = listed.runs.filter(
      ({ status }) => status === RunStatus.FAILED || status === RunStatus.TIMEOUT,
    );
    if (chance < 0.55 && active.length > 0) {
      const { id } = this.#random.pick(active);
      await this.#caller.call(
        org,
        { method: "cancel", run: id },
        () => runs.cancelRun({ runId: id, reason: "the workload asked for it" }),
        () => ({ run: id }),
      );
    } else if (chance < 0.65 && failed.length > 0) {
      const { id } = this.#random.pick(failed);
      await this.#caller.call(
        org,
        { method: "retry", run: id },
        () => runs.retryRun({ runId: id }),
        ({ run }) => ({ run: run!.id }),
      );
    }
  }

  async #edit(watcher: RigWatcher, isOfSchedule: boolean): Promise<void> {
    const { id } = watcher;
    // One edit at a time, so that the last requested schedule is the final one.
    if (this.#editing.has(id)) return;
    this.#editing.add(id);
    try {
      if (isOfSchedule && watcher.isEdited) await this.#editSchedule(watcher);
      else await this.#editPrompt(watcher);
    } finally {
      this.#editing.delete(id);
    }
  }

  async #editSchedule({ id, org }: RigWatcher): Promise<void> {
    const every = this.#random.chance(0.2) ? null : this.#random.pick(everySeconds);
    await this.#caller.call(
      org,
      { method: "setSchedule", watcher: id, every },
      () => setSchedule(this.#clients(org), id, every),
      () => ({}),
    );
  }

  async #editPrompt({ id, org, device }: RigWatcher): Promise<void> {
    const prompt = promptFor(device, this.#random.whole(2, 1_000_000));
    await this.#caller.call(
      org,
      { method: "setPrompt", watcher: id },
      () =>
        this.#clients(org).watchers.updateWatcher({
          watcherId: id,
          spec: { prompt },
          updateMask: { paths: ["prompt"] },
        }),
      () => ({}),
    );
  }
}

function isActive(status: RunStatus): boolean {
  return status === RunStatus.PENDING || status === RunStatus.CLAIMED || status === RunStatus.RUNNING;
}
