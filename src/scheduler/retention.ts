import * as workers from "../store/people/devices/workers.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import { isPassing, isUnavailable } from "../store/pg/failures.ts";
import * as partitions from "../store/work/service/partitions.ts";
import * as pastDays from "../store/work/service/past-days.ts";
import * as replicas from "../store/work/service/replicas.ts";
import * as retention from "../store/work/service/retention.ts";
import * as clockJumps from "../store/work/watchers/clock-jumps.ts";
import type { Logger } from "../telemetry/log.ts";
import { type Loop, startLoop } from "./loop.ts";
import type { Clock } from "./slots/clock.ts";

const hourMs = 3_600_000;
/** A replica without a heartbeat for this time, in milliseconds, is removed from the list. */
const deadReplicaMs = 24 * hourMs;
/**
 * A fleet worker absent for this time, in milliseconds, and without attempts is removed from the
 * list.
 */
const awayWorkerMs = 24 * hourMs;
/** Maximum fleet workers removed per pass; the next pass removes the rest. */
const workersPerPassMax = 1_000;

/** Maximum batches of old rows deleted per table and pass. */
const batchesPerPassMax = 20;
/** Maximum past days that are closed per pass. */
const closedPerPassMax = 2;
/** Milliseconds until the next pass while old rows are left. */
const moreMs = 1_000;
/** Milliseconds until the next check while the database's clock is in doubt. */
const inDoubtMs = 60_000;
/** Milliseconds until the next try of tending after the runs were in use. */
const untendedMs = 60_000;

export type Retained = {
  /** Number of rows deleted from unpartitioned tables. */
  deleted: number;
  /** A table may have more of them. */
  isMore: boolean;
  /** The partitions are in order, or another replica is tending them. */
  isTended: boolean;
  at: Date;
};

/** Maximum ages, in days; a conversation's age counts from its last message. */
type Age = { days: number; conversationDays: number };

/**
 * Tends the partitions, and deletes one batch of old rows of each table and of absent fleet
 * workers. Ages count back from `at`, which is also returned; without `at`, from the last pass's
 * time, advanced by at most a day.
 */
export async function retainOnce(
  db: Db,
  options: Age & { log: Logger; at?: Date | undefined },
): Promise<Retained> {
  const at = options.at ?? (await transaction(db, (tx) => retention.advance(tx)));
  const isTended = await tend(db, { ...options, at });
  await pastDays.addUpChanges(db);
  await clockJumps.forgetOld(db, options);
  await replicas.removeDead(db, deadReplicaMs);
  await transaction(db, (tx) => workers.removeAway(tx, { awayMs: awayWorkerMs, limit: workersPerPassMax }));
  return { ...(await retention.deleteOld(db, { ...options, at })), isTended, at };
}

/**
 * A pass if one is due: each hour, by whichever replica comes first. Undefined if none is due, for
 * example at the start of the second replica of a deploy.
 */
export async function retainIfDue(db: Db, options: Age & { log: Logger }): Promise<Retained | undefined> {
  return (await retention.dueInMs(db, hourMs)) > 0 ? undefined : retainOnce(db, options);
}

/**
 * Whether the partitions were tended. Tending may wait: ended runs go to the default partition
 * meanwhile.
 */
async function tend(db: Db, options: { days: number; log: Logger; at: Date }): Promise<boolean> {
  try {
    const tended = await partitions.tend(db, options.days, options.at);
    if (tended && tended.dropped.length > 0)
      options.log.info({ dropped: tended.dropped }, "dropped old runs");
    for (let closed = 0; closed < closedPerPassMax; closed++) {
      if (!(await transaction(db, (tx) => partitions.closePast(tx)))) break;
    }
    return true;
  } catch (error) {
    if (isUnavailable(error)) throw error;
    options.log[isPassing(error) ? "warn" : "error"](
      { err: error },
      "the partitions of ended runs could not be tended; will try again",
    );
    return false;
  }
}

/**
 * Starts retention: hourly, by one of the replicas, and soon again while more rows are to delete
 * than a pass takes. Nothing is deleted while the database's clock is in doubt. `begun`: the pass
 * of a moment ago, which the first pass of the loop goes on with.
 */
export function startRetention(
  options: Age & {
    db: Db;
    log: Logger;
    judge?: Pick<Clock, "check">;
    begun?: Retained | undefined;
  },
): Loop {
  let { begun } = options;
  /** The next pass over remaining rows counts ages from the same time. */
  let at: Date | undefined;
  return startLoop({
    name: "retention",
    log: options.log,
    async pass(signal) {
      if ((await options.judge?.check())?.isInDoubt) return inDoubtMs;
      if (!begun && !at) {
        const dueInMs = await retention.dueInMs(options.db, hourMs);
        if (dueInMs > 0) return dueInMs;
      }
      const retained = begun ?? (await retainOnce(options.db, { ...options, at }));
      begun = undefined;
      let { isMore, isTended } = retained;
      for (let batches = 1; isMore && batches < batchesPerPassMax && !signal.aborted; batches++) {
        ({ isMore } = await retention.deleteOld(options.db, { ...options, at: retained.at }));
      }
      at = isMore || !isTended ? retained.at : undefined;
      if (isMore) return moreMs;
      return isTended ? hourMs : untendedMs;
    },
  });
}
