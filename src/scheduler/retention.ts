import type { Logger } from "../log.ts";
import * as workers from "../store/people/workers.ts";
import { type Db, isPassing, isUnavailable, transaction } from "../store/pg/database.ts";
import * as clockJumps from "../store/work/clock-jumps.ts";
import * as replicas from "../store/work/replicas.ts";
import * as retention from "../store/work/retention.ts";
import type { Clock } from "./clock.ts";
import { type Loop, startLoop } from "./loop.ts";

const hourMs = 3_600_000;
/** A replica that has not beaten for this long is taken off the list. */
const deadReplicaMs = 24 * hourMs;
/** A fleet worker that was away for this long, and holds nothing, is taken off the list. */
const awayWorkerMs = 24 * hourMs;
/** Fleet workers that one pass takes off the list; the rest are the next one's. */
const workersPerPassMax = 1_000;

/** Batches of old rows, of each table, that one pass deletes. */
const batchesPerPassMax = 20;
/** How soon a pass follows one that left old rows behind. */
const moreMs = 1_000;
/** How soon to look again while the database's clock is in doubt. */
const inDoubtMs = 60_000;
/** How soon tending is tried again after the runs were in use. */
const untendedMs = 60_000;

export type Retained = {
  /** Rows of unpartitioned tables that were deleted. */
  deleted: number;
  /** A table may have more of them. */
  isMore: boolean;
  /** The partitions are as they should be, or somebody else sees to it. */
  isTended: boolean;
  at: Date;
};

/** How old what goes is, in days; of a conversation, since somebody last spoke in it. */
type Age = { days: number; conversationDays: number };

/**
 * Tends the partitions, and deletes one batch of old rows of each table and of fleet workers that are away. Ages are counted
 * from `at`, which the answer has as well; without it, from where the last pass counted, and up to a day further.
 */
export async function retainOnce(
  db: Db,
  options: Age & { log: Logger; at?: Date | undefined },
): Promise<Retained> {
  const at = options.at ?? (await transaction(db, (tx) => retention.advance(tx)));
  const isTended = await tend(db, { ...options, at });
  await clockJumps.forgetOld(db, options);
  await replicas.removeDead(db, deadReplicaMs);
  await transaction(db, (tx) => workers.removeAway(tx, { awayMs: awayWorkerMs, limit: workersPerPassMax }));
  return { ...(await retention.deleteOld(db, { ...options, at })), isTended, at };
}

/** Whether the partitions were tended; ended runs fall into the default partition meanwhile, so it may wait. */
async function tend(db: Db, options: { days: number; log: Logger; at: Date }): Promise<boolean> {
  try {
    const tended = await transaction(db, (tx) => retention.tendPartitions(tx, options.days, options.at));
    if (tended && tended.dropped.length > 0)
      options.log.info({ dropped: tended.dropped }, "dropped old runs");
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
 * Starts retention: hourly, and again soon while there is more to delete than one pass takes. Nothing is deleted while the
 * database's clock is in doubt.
 */
export function startRetention(options: Age & { db: Db; log: Logger; judge?: Pick<Clock, "check"> }): Loop {
  /** What is left of a pass is counted from where that pass counted. */
  let at: Date | undefined;
  return startLoop({
    name: "retention",
    log: options.log,
    async pass(signal) {
      if ((await options.judge?.check())?.isInDoubt) return inDoubtMs;
      const retained = await retainOnce(options.db, { ...options, at });
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
