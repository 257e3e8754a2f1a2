import { type Db, transaction } from "../../store/pg/database.ts";
import * as events from "../../store/work/service/events.ts";
import * as clockJumps from "../../store/work/watchers/clock-jumps.ts";
import * as positions from "../../store/work/watchers/positions.ts";
import * as schedules from "../../store/work/watchers/schedules.ts";
import type { Logger } from "../../telemetry/log.ts";
import { type Loop, startLoop } from "../loop.ts";
import { jitterOf, nextSlot } from "../schedule/schedule.ts";
import type { Clock } from "./clock.ts";

/**
 * Corrects schedules that stand at a later slot than their cron's next slot, because they moved
 * while the database's clock was ahead. Each such schedule is planned again from now. Its skipped
 * slots in the future become due again; a future slot that has a run keeps the run, so that the
 * slot does not get a second run.
 */

/**
 * Maximum milliseconds that a correct schedule is ahead of its cron: slots may be recorded ahead by
 * this time.
 */
const aheadMsMax = 300_000;
const watchersPerReadMax = 1_000;
const everyMs = 3_600_000;
/**
 * Milliseconds. If the database's clock is behind the replica's own clock by more than this time,
 * the database's clock is probably wrong: by such a clock, schedules would be moved back to slots
 * of long ago.
 */
const behindMsMax = 7_200_000;
const behindAgainMs = 60_000;

/** Milliseconds by which the database's clock is behind the replica's own. */
const behindOf = (now: Date) => Date.now() - now.getTime();

/** The correct next slot of a schedule that is too far ahead; undefined for a correct schedule. */
function standsTooFar(watcher: positions.PlannedWatcher): Date | undefined {
  const next = nextSlot(watcher, watcher.now);
  const latest = nextSlot(watcher, new Date(watcher.now.getTime() + aheadMsMax));
  return next && latest && watcher.nextSlotAt > latest ? next : undefined;
}

/** Replans all schedules that are too far ahead; returns their number. */
export async function replanOnce(db: Db, options: { log: Logger; signal?: AbortSignal }): Promise<number> {
  let count = 0;
  let after: schedules.WatcherName | undefined;
  do {
    const read = await positions.listPlanned(db, { after, aheadMs: aheadMsMax, limit: watchersPerReadMax });
    for (const watcher of read) {
      const next = standsTooFar(watcher);
      if (next && (await replan(db, watcher, next))) count += 1;
    }
    after = read.length === watchersPerReadMax ? read.at(-1) : undefined;
  } while (after && !options.signal?.aborted);
  if (count > 0)
    options.log.warn({ watchers: count }, "schedules stood too far ahead and were planned again");
  return count;
}

/** `expected`: the next slot as found before any lock. */
async function replan(db: Db, name: schedules.WatcherName, expected: Date): Promise<boolean> {
  return transaction(db, async (tx) => {
    await positions.lockSkipped(tx, { ...name, nextSlotAt: expected });
    const watcher = await schedules.lockOne(tx, name);
    if (!watcher?.schedule || !watcher.nextSlotAt) return false;
    const { orgId, watcherId, schedule, timeZone, nextSlotAt, jitterMs, now } = watcher;
    // The clock may have gone back since the pass looked at it.
    if (behindOf(now) > behindMsMax) return false;
    const next = standsTooFar({ orgId, watcherId, schedule, timeZone, nextSlotAt, now });
    if (!next) return false;
    const nextDueAt = new Date(next.getTime() + jitterOf(watcherId, jitterMs));
    const slotsFreed = await positions.moveBack(tx, { orgId, watcherId, nextSlotAt: next, nextDueAt });
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

/**
 * Starts the checks: at the start, hourly (one replica for all), and when asked. A check that fails
 * is repeated; a check that died with its replica is asked for again by the clock (clock-watch.ts).
 */
export function startReplanner(options: {
  db: Db;
  log: Logger;
  judge: Pick<Clock, "check">;
  /** Reports that schedules were moved. */
  onReplanned: () => void;
}): Loop & { now(): void } {
  const { db, log, judge, onReplanned } = options;
  let isAsked = true;
  let isBehindUntil = Number.NEGATIVE_INFINITY;
  const loop = startLoop({
    name: "replanner",
    log,
    async pass(signal) {
      const behindForMs = isBehindUntil - performance.now();
      if (behindForMs > 0) return behindForMs;
      if ((await judge.check()).isInDoubt) return everyMs;
      const behindMs = behindOf((await clockJumps.read(db)).now);
      if (behindMs > behindMsMax) {
        log.warn({ behindMs }, "the database's clock is behind; no schedule is planned again by it");
        isBehindUntil = performance.now() + behindAgainMs;
        return behindAgainMs;
      }
      const last = await positions.lastReplanning(db, everyMs);
      if (!last.isDue && !isAsked) return everyMs;
      // A request during the check starts another check.
      isAsked = false;
      try {
        if ((await replanOnce(db, { log, signal })) > 0) onReplanned();
        if (!signal.aborted) await positions.noteReplanned(db, last);
      } catch (error) {
        isAsked = true;
        throw error;
      }
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
