import type { Logger } from "../log.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import * as events from "../store/work/events.ts";
import * as schedules from "../store/work/schedules.ts";
import type { Clock } from "./clock.ts";
import { type Loop, startLoop } from "./loop.ts";
import { jitterOf, nextSlot } from "./schedule/schedule.ts";

/**
 * Schedules that stand further ahead than their cron's next slot: they were moved while the database's clock was ahead. Each is
 * planned again from now. Slots that were skipped meanwhile and are still to come are due once more; a slot that has a
 * run keeps it, so that it does not fire twice.
 */

/** Slots may be recorded so long before they are due; a schedule that is ahead by no more is as it should be. */
const aheadMsMax = 300_000;
const watchersPerReadMax = 1_000;
const everyMs = 3_600_000;

/** Where the schedule should stand, if it stands further ahead. */
export function standsTooFar(watcher: schedules.PlannedWatcher): Date | undefined {
  const next = nextSlot(watcher, watcher.now);
  const latest = nextSlot(watcher, new Date(watcher.now.getTime() + aheadMsMax));
  return next && latest && watcher.nextSlotAt > latest ? next : undefined;
}

/** Plans again what is too far ahead, of all watchers; answers how many that were. */
export async function replanOnce(db: Db, options: { log: Logger; signal?: AbortSignal }): Promise<number> {
  let count = 0;
  let after: schedules.WatcherName | undefined;
  do {
    const read = await schedules.listPlanned(db, { after, aheadMs: aheadMsMax, limit: watchersPerReadMax });
    for (const watcher of read) if (standsTooFar(watcher) && (await replan(db, watcher))) count += 1;
    after = read.length === watchersPerReadMax ? read.at(-1) : undefined;
  } while (after && !options.signal?.aborted);
  if (count > 0)
    options.log.warn({ watchers: count }, "schedules stood too far ahead and were planned again");
  return count;
}

async function replan(db: Db, name: schedules.WatcherName): Promise<boolean> {
  return transaction(db, async (tx) => {
    const watcher = await schedules.lockOne(tx, name);
    if (!watcher?.schedule || !watcher.nextSlotAt) return false;
    const { orgId, watcherId, schedule, timeZone, nextSlotAt, jitterMs, now } = watcher;
    const next = standsTooFar({ orgId, watcherId, schedule, timeZone, nextSlotAt, now });
    if (!next) return false;
    const nextDueAt = new Date(next.getTime() + jitterOf(watcherId, jitterMs));
    const slotsFreed = await schedules.moveBack(tx, { orgId, watcherId, nextSlotAt: next, nextDueAt });
    await events.append(tx, orgId, [
      {
        kind: "watcher.replanned",
        actor: "pinion",
        watcherId,
        data: {
          reason: "its schedule stood further ahead than its next slot",
          from: nextSlotAt.toISOString(),
          to: next.toISOString(),
          slots_freed: slotsFreed,
        },
      },
    ]);
    return true;
  });
}

/** Starts looking: at the start, hourly (one replica for all), and when it is poked. */
export function startReplanner(options: {
  db: Db;
  log: Logger;
  judge: Pick<Clock, "check">;
  /** Told of schedules that were moved. */
  onReplanned: () => void;
}): Loop & { now(): void } {
  let isAsked = true;
  const loop = startLoop({
    name: "replanner",
    log: options.log,
    async pass(signal) {
      if ((await options.judge.check()).isInDoubt) return everyMs;
      const isMine = await schedules.takeReplanning(options.db, everyMs);
      if (!isMine && !isAsked) return everyMs;
      isAsked = false;
      if ((await replanOnce(options.db, { log: options.log, signal })) > 0) options.onReplanned();
      return everyMs;
    },
  });
  return {
    ...loop,
    now() {
      isAsked = true;
      loop.poke();
    },
  };
}
