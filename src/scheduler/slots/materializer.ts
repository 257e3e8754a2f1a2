import type { Db } from "../../store/pg/database.ts";
import * as schedules from "../../store/work/watchers/schedules.ts";
import type { DatabaseClock } from "../../time/database-clock.ts";
import { type Loop, startLoop } from "../loop.ts";
import { ClockInDoubt } from "./clock.ts";
import { planAhead, planBacklog, planDue } from "./plan.ts";
import { type Pass, type Passed, type PassOptions, type Planner, passOver } from "./recording.ts";

/**
 * Turns due slots into rows: a run, or a skipped run with its reason (R2), in the transaction that
 * moves the schedule (R3). Any number of replicas may materialize at once: each locks different
 * watchers. The materializer sleeps until shortly before the next slot is due. A run whose watcher
 * has no active run is recorded ahead, and claimed if its device is connected to the replica, so
 * that at the due time only the frame has to be written. All other slots are decided when they fall
 * due.
 *
 *   schedule at a slot ──ahead──▶ run (pending or claimed) ──due──▶ pushed
 *      │                                                          (schedule moves with the row)
 *      ├──due──▶ run │ skipped, with its reason
 *      └──due, active run, a queueing overlap──▶ backlog ──active run ends──▶ run
 */

/** Watchers per transaction. */
const watchersPerPassMax = 1_000;
/**
 * While more watchers are due than a pass takes, each pass includes this number of the latest due,
 * so that a large group delays itself and not the slots after the group.
 */
const newestPerPass = 100;

/**
 * Milliseconds until the next check for due slots that were passed over, because they fell due at
 * the same moment or another transaction holds their lock. Doubles with each check without
 * progress.
 */
const passedOverMs = 1;
const passedOverMsMax = 50;
/** Milliseconds after a wake-up within which a slot that falls due is expected by the wake-up. */
const expectedMs = 5;

/** Milliseconds until the next check while the database's clock is in doubt. */
const inDoubtMs = 1_000;

/**
 * Records the due slots of up to `limit` watchers, the longest due first, and of up to `newest` of
 * the latest due; returns the number of watchers processed.
 */
export async function materializeOnce(
  db: Db,
  options: PassOptions & { limit?: number; newest?: number },
): Promise<number> {
  const { limit = watchersPerPassMax, newest } = options;
  const lock = (tx: Db) => schedules.lockDue(tx, limit, newest);
  return (await passOver(db, options, { lock, plan: planDue })).watchers;
}

/** Records slots that waited for the end of their watcher's active run. */
export async function materializeBacklogOnce(
  db: Db,
  options: PassOptions & { limit?: number },
): Promise<number> {
  const limit = options.limit ?? watchersPerPassMax;
  const lock = (tx: Db) => schedules.lockBacklogged(tx, limit);
  return (await passOver(db, options, { lock, plan: planBacklog })).watchers;
}

/**
 * Two concurrent passes, each over different watchers: while PostgreSQL writes for one pass, the
 * other pass plans.
 */
async function catchUp(options: PassOptions & { db: Db }): Promise<number> {
  const passes = [newestPerPass, 0].map((newest) => materializeOnce(options.db, { ...options, newest }));
  return (await allDone(passes)).reduce((sum, due) => sum + due, 0);
}

/** The results of passes at the same time; throws the first failure after all have ended. */
async function allDone<Result>(passes: readonly Promise<Result>[]): Promise<Result[]> {
  const results = await Promise.allSettled(passes);
  return results.map((result) => {
    if (result.status === "rejected") throw result.reason;
    return result.value;
  });
}

type Options = PassOptions & {
  db: Db;
  clock: DatabaseClock;
  replicaId: string;
  /** Maximum milliseconds of sleep, for slots that another replica's writes made due. */
  sweepMs: number;
  /** Milliseconds that slots are recorded before they are due; 0: slots are recorded when due. */
  aheadMs: number;
};

export function startMaterializer(options: Options): Loop {
  const ahead = new LookAhead(options);
  const series = new Series(options, ahead);
  const loop = startLoop({
    name: "materializer",
    log: options.log,
    async pass(_, wasPoked) {
      try {
        return await series.pass(wasPoked);
      } catch (error) {
        if (!(error instanceof ClockInDoubt)) throw error;
        return inDoubtMs;
      }
    },
  });
  return {
    poke() {
      ahead.forget();
      loop.poke();
    },
    stop: () => loop.stop(),
  };
}

/** The materializer's passes: what is due first, then what waited, then what is ahead. */
class Series {
  readonly #options: Options;
  readonly #ahead: LookAhead;
  #isBehind = false;
  /** A slot is due by now, as far as the last pass knew. */
  #isExpecting = true;
  #againMs = passedOverMs;

  constructor(options: Options, ahead: LookAhead) {
    this.#options = options;
    this.#ahead = ahead;
  }

  /** Returns the milliseconds to sleep. */
  async pass(wasPoked: boolean): Promise<number> {
    const { db, clock, sweepMs } = this.#options;
    // Between due slots a look suffices.
    const hasTried = wasPoked || this.#isExpecting;
    const due = hasTried ? await this.#materialize() : 0;
    this.#isExpecting = true;
    this.#isBehind = due >= watchersPerPassMax;
    if (this.#isBehind) return 0;
    const outlook = await this.#look();
    const { dueMs, hasBacklog } = outlook;
    if (hasBacklog && (await materializeBacklogOnce(db, this.#options)) > 0) return 0;
    const isDue = dueMs !== null && dueMs <= outlook.nowMs;
    // The slot fell due during the last pass, or before it was expected.
    if (isDue && (due > 0 || !hasTried)) return 0;
    if (isDue || hasBacklog) {
      const waitMs = this.#againMs;
      this.#againMs = Math.min(2 * this.#againMs, passedOverMsMax);
      return waitMs;
    }
    this.#againMs = passedOverMs;
    const beginMs = await this.#ahead.pass(outlook);
    const wakeMs = Math.min(dueMs ?? Number.POSITIVE_INFINITY, beginMs ?? Number.POSITIVE_INFINITY);
    // A fraction of a millisecond early: the slot is due when the statement arrives.
    const waitMs = Math.min(Math.max(0, Math.floor(wakeMs - clock.now())), sweepMs);
    this.#isExpecting = dueMs !== null && dueMs <= clock.now() + waitMs + expectedMs;
    return waitMs;
  }

  #materialize(): Promise<number> {
    return this.#isBehind ? catchUp(this.#options) : materializeOnce(this.#options.db, this.#options);
  }

  #look(): Promise<schedules.Outlook> {
    const { db, clock } = this.#options;
    return clock.read(
      () => schedules.lookAhead(db, this.#ahead.through, this.#options.replicaId),
      ({ nowMs }) => nowMs,
    );
  }
}

/** Watchers per transaction ahead: a slot that falls due waits for one such transaction. */
const aheadPerPassMax = 500;
/**
 * Maximum milliseconds that a slot is recorded ahead; the last slots of a larger crowd are late.
 */
const aheadMsMax = 60_000;
/** The sizes of crowds that are checked, in slots; a crowd of one moment is counted. */
const crowds = [1_000, 4_000, 16_000, 64_000, 256_000];
/** Assumed slots recorded per second, before the first measurement. */
const rateAtFirst = 2_000;
/** Factor by which the start for a crowd is earlier than the measured rate requires. */
const crowdMargin = 1.2;
/** Watchers that one of several replicas lists at once, for a number of passes. */
const listedMax = 20 * aheadPerPassMax;
/** Concurrent passes over a crowd: while PostgreSQL writes for one pass, the other pass plans. */
const crowdLanes = 2;

/**
 * Records slots ahead of their due time, in passes: all slots due within `aheadMs` milliseconds,
 * and a crowd that needs longer for recording earlier by the needed time.
 */
export class LookAhead {
  readonly #db: Db;
  readonly #options: PassOptions;
  readonly #aheadMs: number;
  readonly #replicaId: string;
  #through = 0;
  #perMs = rateAtFirst / 1_000;
  /**
   * The time up to which the current series of passes continues, before the next crowd is searched.
   */
  #reachMs = 0;
  /** Passes of the series at the same time. */
  #lanes = 1;
  /**
   * Beside other replicas: the watchers for the next passes of the series; undefined: not listed.
   */
  #listed: { names: schedules.WatcherName[]; hasMore: boolean } | undefined;
  /** The start of the series, where the replica's own share of a crowd may begin later. */
  #heldMs = 0;
  /** What the passes of the series have recorded so far, and the milliseconds that they took. */
  #series = { recorded: 0, ms: 0 };

  constructor(options: PassOptions & { db: Db; aheadMs: number; replicaId: string }) {
    this.#db = options.db;
    this.#options = options;
    this.#aheadMs = options.aheadMs;
    this.#replicaId = options.replicaId;
  }

  /** Slots due up to this time were processed ahead; the remaining slots are decided when due. */
  get through(): number {
    return this.#through;
  }

  /** Restarts the search: slots may have moved into the processed range. */
  forget(): void {
    this.#through = 0;
    this.#endSeries();
  }

  #endSeries(): void {
    const { recorded, ms } = this.#series;
    if (recorded >= aheadPerPassMax / 2) this.#perMs = (this.#perMs + recorded / ms) / 2;
    this.#series = { recorded: 0, ms: 0 };
    this.#reachMs = 0;
    this.#heldMs = 0;
    this.#listed = undefined;
  }

  /**
   * Records the slots that are due for recording; returns the start of the next pass in
   * milliseconds since 1970, if any.
   */
  async pass({ nowMs, beyondMs, hasOthers }: schedules.Outlook): Promise<number | undefined> {
    // The clock was set back.
    if (Math.max(this.#through, this.#reachMs) > nowMs + 2 * aheadMsMax) this.forget();
    if (beyondMs === null || this.#aheadMs === 0) return undefined;
    // The runs of a device that is connected elsewhere are claimed as they are recorded there.
    const replicaId = hasOthers ? this.#replicaId : undefined;
    if (beyondMs > this.#reachMs || nowMs > this.#reachMs) {
      this.#endSeries();
      const { beginMs, untilMs, found } = await this.#findBegin(beyondMs, nowMs);
      if (beginMs > nowMs) return beginMs;
      this.#reachMs = untilMs;
      this.#lanes = found.length > 0 ? crowdLanes : 1;
      if (replicaId !== undefined && found.length > 0) {
        const { names, hasMore } = await this.#list(this.#reachOf(nowMs), replicaId);
        const ownMax = hasMore ? undefined : names.length;
        const begins = found.map((crowd) => this.#beginOf(crowd, ownMax));
        this.#heldMs = Math.min(beyondMs - this.#aheadMs / 2, ...begins);
      }
    }
    if (this.#heldMs > nowMs) return this.#heldMs;
    await this.#record(nowMs, replicaId);
    return nowMs;
  }

  #reachOf(nowMs: number) {
    return { after: this.#through, withinMs: this.#reachMs - nowMs };
  }

  async #record(nowMs: number, replicaId: string | undefined): Promise<void> {
    const startedAt = performance.now();
    const untilAt = new Date(this.#reachMs);
    const { locks, isLast } = await this.#locksOf(this.#reachOf(nowMs), replicaId);
    const plan: Planner = (watcher) => planAhead(watcher, untilAt);
    const passes = locks.map((lock) => passOver(this.#db, this.#options, { lock, plan }));
    const passed = await allDone(passes).catch((error: unknown) => {
      // What the failed passes took from the list is listed again.
      this.#listed = undefined;
      throw error;
    });
    const recorded = passed.reduce((sum, one) => sum + one.recorded, 0);
    this.#series.recorded += recorded;
    this.#series.ms += performance.now() - startedAt;
    // Slots left to their due time by the last pass are not counted again.
    if (isLast(passed) || recorded < aheadPerPassMax / 2) {
      this.#through = untilAt.getTime();
      this.#endSeries();
    }
  }

  /** What the passes at this time lock, and whether none is left behind them. */
  async #locksOf(
    reach: { after: number; withinMs: number },
    replicaId: string | undefined,
  ): Promise<{ locks: Pass["lock"][]; isLast: (passed: readonly Passed[]) => boolean }> {
    const limit = aheadPerPassMax;
    const lanes = Array.from({ length: this.#lanes });
    if (replicaId === undefined) {
      const lock: Pass["lock"] = (tx) => schedules.lockAhead(tx, { ...reach, limit });
      const isLast = (passed: readonly Passed[]) => passed.some(({ watchers }) => watchers < limit);
      return { locks: lanes.map(() => lock), isLast };
    }
    if (this.#listed?.hasMore && this.#listed.names.length === 0) this.#listed = undefined;
    const { names, hasMore } = this.#listed ?? (await this.#list(reach, replicaId));
    const parts = lanes.map(() => names.splice(0, limit)).filter((part) => part.length > 0);
    const lockOf = (part: schedules.WatcherName[]) => (tx: Db) => schedules.lockListed(tx, part);
    return { locks: parts.map(lockOf), isLast: () => names.length === 0 && !hasMore };
  }

  async #list(reach: { after: number; withinMs: number }, replicaId: string) {
    const names = await schedules.listAhead(this.#db, { ...reach, limit: listedMax, replicaId });
    this.#listed = { names, hasMore: names.length === listedMax };
    return this.#listed;
  }

  /**
   * The start of the next series and the end of its range, in milliseconds since 1970, and the
   * crowds in the range.
   */
  async #findBegin(beyondMs: number, nowMs: number) {
    // Half of the time is for slots that follow: at a hundred per second, a hundred are recorded
    // together.
    let beginMs = beyondMs - this.#aheadMs / 2;
    let untilMs = Math.max(nowMs, beginMs) + this.#aheadMs;
    const found: schedules.Crowd[] = [];
    for (const count of crowds) {
      const crowd = await schedules.findCrowd(this.#db, this.#through, count);
      if (crowd === undefined || crowd.dueMs > nowMs + aheadMsMax) break;
      if (this.#beginOf(crowd) > beginMs) continue;
      beginMs = this.#beginOf(crowd);
      untilMs = Math.max(untilMs, crowd.dueMs);
      found.push(crowd);
    }
    return { beginMs, untilMs, found };
  }

  /** The start for a crowd, of which the replica records `ownMax` slots at most. */
  #beginOf({ dueMs, slots }: schedules.Crowd, ownMax = slots): number {
    const recordingMs = (Math.min(slots, ownMax) / this.#perMs) * crowdMargin;
    return dueMs - Math.min(aheadMsMax, Math.max(this.#aheadMs / 2, recordingMs));
  }
}
