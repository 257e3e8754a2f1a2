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

/** People and services that trigger, cancel, retry, edit, backfill and read, until stopped. */
export async function runWorkload(options: {
  random: Random;
  clients: ReadonlyMap<string, Clients>;
  watchers: readonly RigWatcher[];
  caller: Caller;
  callsPerSecond: number;
  stop: AbortSignal;
}): Promise<void> {
  const { random, watchers, caller, stop } = options;
  const editing = new Set<string>();
  const workers = Math.max(2, Math.ceil(options.callsPerSecond / 2));

  async function one(): Promise<void> {
    const watcher = random.pick(watchers);
    const clients = options.clients.get(watcher.org)!;
    const { org, id } = watcher;
    const chance = random.next();
    if (chance < 0.45) {
      await caller.call(
        org,
        { method: "trigger", watcher: id },
        () => clients.watchers.triggerWatcher({ watcherId: id }),
        ({ run, alreadyQueued }) => ({ run: run!.id, alreadyQueued, runs: [run!.id] }),
      );
    } else if (chance < 0.7) {
      await look(watcher, chance);
    } else if (chance < 0.8) {
      await caller.call(
        org,
        { method: "listWindows", watcher: id },
        () => clients.runs.listWindows({ watcherId: id, pageSize: 20 }),
        ({ windows }) => ({ runs: windows.map(({ runId }) => runId) }),
      );
    } else if (chance < 0.85 && watcher.every !== null && !watcher.isEdited) {
      const every = watcher.every * 1000;
      // Whole minutes before the creation of the watcher, where the watcher has no slots of its
      // own.
      const end = Math.floor((watcher.createdAt - backfillMs * random.whole(1, 20)) / every) * every;
      const start = end - random.whole(1, 3) * every;
      await caller.call(
        org,
        { method: "backfill", watcher: id, start, end },
        () =>
          clients.watchers.backfillWatcher({
            watcherId: id,
            start: timestampFromMs(start),
            end: timestampFromMs(end),
          }),
        () => ({}),
      );
    } else {
      await edit(watcher, random.chance(0.5));
    }
  }

  /** Reads an org's runs, and at times cancels or retries a run. */
  async function look({ org }: RigWatcher, chance: number): Promise<void> {
    const clients = options.clients.get(org)!;
    const listed = await caller.call(
      org,
      { method: "listRuns" },
      () => clients.runs.listRuns({ pageSize: 50 }),
      ({ runs }) => ({ runs: runs.map(({ id }) => id) }),
    );
    if (!listed) return;
    const isActive = (status: RunStatus) =>
      status === RunStatus.PENDING || status === RunStatus.CLAIMED || status === RunStatus.RUNNING;
    const active = listed.runs.filter(({ status }) => isActive(status));
    const failed = listed.runs.filter(
      ({ status }) => status === RunStatus.FAILED || status === RunStatus.TIMEOUT,
    );
    if (chance < 0.55 && active.length > 0) {
      const { id } = random.pick(active);
      await caller.call(
        org,
        { method: "cancel", run: id },
        () => clients.runs.cancelRun({ runId: id, reason: "the workload asked for it" }),
        () => ({ run: id }),
      );
    } else if (chance < 0.65 && failed.length > 0) {
      const { id } = random.pick(failed);
      await caller.call(
        org,
        { method: "retry", run: id },
        () => clients.runs.retryRun({ runId: id }),
        ({ run }) => ({ run: run!.id }),
      );
    }
  }

  async function edit(watcher: RigWatcher, isOfSchedule: boolean): Promise<void> {
    const { id, org, device } = watcher;
    // One edit at a time, so that the last requested schedule is the final one.
    if (editing.has(id)) return;
    editing.add(id);
    const clients = options.clients.get(org)!;
    try {
      if (isOfSchedule && watcher.isEdited) {
        const every = random.chance(0.2) ? null : random.pick(everySeconds);
        await caller.call(
          org,
          { method: "setSchedule", watcher: id, every },
          () => setSchedule(clients, id, every),
          () => ({}),
        );
      } else {
        const prompt = promptFor(device, random.whole(2, 1_000_000));
        await caller.call(
          org,
          { method: "setPrompt", watcher: id },
          () =>
            clients.watchers.updateWatcher({
              watcherId: id,
              spec: { prompt },
              updateMask: { paths: ["prompt"] },
            }),
          () => ({}),
        );
      }
    } finally {
      editing.delete(id);
    }
  }

  await Promise.all(
    Array.from({ length: workers }, async () => {
      while (!stop.aborted) {
        await one();
        await delay((workers / options.callsPerSecond) * 1000 * (0.5 + random.next()));
      }
    }),
  );
}
