import type { DatabaseClock } from "../database-clock.ts";
import { refuse } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { Quotas } from "../store/people/quotas.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import { isPassing, mayBeOfOneRow } from "../store/pg/failures.ts";
import * as alerts from "../store/work/alerts.ts";
import * as clockJumps from "../store/work/clock-jumps.ts";
import * as events from "../store/work/events.ts";
import * as schedules from "../store/work/schedules.ts";
import { type Clock, ClockInDoubt, elapsedMs } from "./clock.ts";
import { jumpMsMin } from "./clock-watch.ts";
import type { HeldSeats } from "./dispatcher.ts";
import type { Doorbell } from "./doorbell.ts";
import { type Loop, startLoop } from "./loop.ts";
import { alertsOfSlot } from "./notices.ts";
import { type Plan, planAhead, planBacklog, planDue, slotsPerPassMax } from "./plan.ts";
import { eventOf } from "./recorded-event.ts";
import { keepWithin } from "./run-limit.ts";

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
 * Maximum slots per transaction. After a downtime the watchers of the transaction share the slots,
 * so that no pass takes seconds while a slot that is due now waits.
 */
export const slotsPerTransactionMax = 5_000;

/**
 * Milliseconds until the next check for due slots that were passed over, because they fell due at
 * the same moment or another transaction holds their lock. Doubles with each check without
 * progress.
 */
const passedOverMs = 1;
const passedOverMsMax = 50;

/** Milliseconds until the next check while the database's clock is in doubt. */
const inDoubtMs = 1_000;

type PassOptions = {
  doorbell: Doorbell;
  log: Logger;
  /** Without them, an org may have any number of active runs. */
  quotas?: Quotas;
  /** The sessions of the replica that claim runs while they are recorded; see Dispatcher.hold. */
  hold?: ((devices: readonly Device[]) => HeldSeats) | undefined;
  /** Checks the time by which the slots are due. Undefined: the time is accepted. */
  judge?: Pick<Clock, "require">;
};

type Device = { orgId: string; deviceId: string | null };

/**
 * Records the due slots of up to `limit` watchers, the longest due first, and of up to `newest` of
 * the latest due; returns the number of watchers processed.
 */
export async function materializeOnce(
  db: Db,
  options: PassOptions & { limit?: number; newest?: number },
): Promise<number> {
  const { limit = watchersPerPassMax, newest } = options;
  return pass(db, options, (tx) => schedules.lockDue(tx, limit, newest), planDue);
}

/** Records slots that waited for the end of their watcher's active run. */
export async function materializeBacklogOnce(
  db: Db,
  options: PassOptions & { limit?: number },
): Promise<number> {
  const limit = options.limit ?? watchersPerPassMax;
  return pass(db, options, (tx) => schedules.lockBacklogged(tx, limit), planBacklog);
}

/** Maximum rounds, each of at most slotsPerPassMax slots, that an edit of a watcher waits for. */
const roundsBeforeEditMax = 40;

/**
 * Records the due slots of a watcher in the caller's transaction, before its schedule is edited,
 * paused or resumed. Returns the rows, whose events ({@link eventOf}) the caller appends as its
 * last statement. Without quotas, the org may have any number of active runs.
 */
export async function recordDue(
  tx: Db,
  orgId: string,
  watcherId: string,
  quotas?: Quotas,
): Promise<schedules.RecordedRun[]> {
  const recorded: schedules.RecordedRun[] = [];
  for (let round = 0; round < roundsBeforeEditMax; round++) {
    const watcher = await schedules.lockOne(tx, { orgId, watcherId });
    if (!watcher?.nextDueAt || watcher.nextDueAt > watcher.now) return recorded;
    if (round === 0) await requireClock(tx, watcher.now);
    const plan = planDue(watcher);
    if (quotas) await keepWithin(tx, quotas, [plan]);
    recorded.push(...(await write(tx, [plan])));
  }
  // All due slots have to be recorded before the schedule moves (R2).
  refuse("aborted", "the watcher is far behind its schedule and is catching up; try again in a moment", {
    retryAfterMs: 5_000,
  });
}

/** Refuses while it is not known whether slots are due at this time. */
async function requireClock(tx: Db, now: Date): Promise<void> {
  const doubt = await clockJumps.findDoubt(tx, { now, aheadMs: jumpMsMin });
  if (doubt === "jumped") {
    refuse(
      "failed_precondition",
      "the database's clock jumped, so it is not known which slots are due; `pinion doctor` says more",
    );
  }
  if (doubt === "unchecked") {
    refuse("unavailable", "the database's clock has not been checked yet; try again in a moment", {
      retryAfterMs: 5_000,
    });
  }
}

/** `slotsMax`: maximum slots of the watcher; further slots stay due. */
type Planner = (watcher: schedules.DueWatcher, slotsMax: number) => Plan;

/**
 * Maximum slots of each watcher in a transaction; at least one, so that every pass makes progress.
 */
function shareOf(watchers: number): number {
  return Math.min(slotsPerPassMax, Math.max(1, Math.floor(slotsPerTransactionMax / watchers)));
}

async function pass(
  db: Db,
  options: PassOptions,
  lock: (tx: Db) => Promise<schedules.DueWatcher[]>,
  plan: Planner,
): Promise<number> {
  return (await passOver(db, options, lock, plan)).watchers;
}

/** Number of watchers processed, and number of watchers with a recorded slot. */
type Passed = { watchers: number; recorded: number };

async function passOver(
  db: Db,
  options: PassOptions,
  lock: (tx: Db) => Promise<schedules.DueWatcher[]>,
  plan: (watcher: schedules.DueWatcher, slotsMax: number) => Plan | undefined,
): Promise<Passed> {
  let names: schedules.WatcherName[] = [];
  let seats: HeldSeats | undefined;
  let recorded = 0;
  try {
    const runs = await transaction(db, async (tx) => {
      const sentAtMs = elapsedMs();
      // Left from a try that was rolled back.
      seats?.drop();
      seats = undefined;
      const watchers = await lock(tx);
      if (watchers[0]) options.judge?.require(watchers[0].now, sentAtMs);
      names = watchers;
      const slotsMax = shareOf(watchers.length);
      const all = watchers.map((watcher) => plan(watcher, slotsMax));
      if (options.quotas)
        await keepWithin(
          tx,
          options.quotas,
          all.filter((one) => one !== undefined),
        );
      const plans: Plan[] = [];
      const slots: PlannedSlot[] = [];
      all.forEach((one, index) => {
        // A slot beyond the quota ahead of its due time may be within the quota when due.
        if (!one || (one.isAhead && one.slots.some((slot) => slot.skipReason))) return;
        plans.push(one);
        for (const slot of one.slots) slots.push({ slot, deviceId: watchers[index]!.deviceId });
      });
      seats = claimAsRecorded(options, slots);
      const written = await write(tx, plans);
      await events.appendAll(tx, written.map(eventOf));
      recorded = plans.length;
      return written;
    });
    options.doorbell.recorded(runs);
    seats?.deliver(runs.filter(schedules.isClaimed));
  } catch (error) {
    seats?.drop();
    if (!mayBeOfOneRow(error) || names.length === 0) throw error;
    options.log.error(
      { err: error, watchers: names.length },
      "a batch of watchers failed; trying them one by one",
    );
    const left: unknown[] = [];
    for (const name of names) {
      await planAlone(db, options, name, plan).catch((failure: unknown) => {
        if (!mayBeOfOneRow(failure)) throw failure;
        left.push(failure);
      });
    }
    // All other watchers are done; the failed watchers stay due, and the next pass is delayed for
    // them.
    if (left.length > 0) throw left[0];
    recorded = names.length;
  }
  return { watchers: names.length, recorded };
}

type PlannedSlot = { slot: schedules.SlotRecord; deviceId: string | null };

/** Lets the statement that writes runs also claim them for devices of the replica. */
function claimAsRecorded(options: PassOptions, slots: readonly PlannedSlot[]): HeldSeats | undefined {
  const runs = slots.filter(({ slot }) => slot.skipReason === null);
  const seats = options.hold?.(runs.map(({ slot, deviceId }) => ({ orgId: slot.orgId, deviceId })));
  runs.forEach(({ slot }, index) => {
    slot.claimant = seats?.claimants[index];
  });
  return seats;
}

/**
 * R9: a watcher that makes its batch fail is processed alone and, if its own data is the cause, set
 * aside and reported. An error that may pass (see isPassing) is thrown: no watcher is paused
 * because of a full disk.
 */
async function planAlone(
  db: Db,
  options: PassOptions,
  name: schedules.WatcherName,
  plan: (watcher: schedules.DueWatcher, slotsMax: number) => Plan | undefined,
): Promise<void> {
  try {
    const runs = await transaction(db, async (tx) => {
      const sentAtMs = elapsedMs();
      const watcher = await schedules.lockOne(tx, name);
      if (watcher) options.judge?.require(watcher.now, sentAtMs);
      const planned = watcher && plan(watcher, slotsPerPassMax);
      const plans = planned ? [planned] : [];
      if (options.quotas) await keepWithin(tx, options.quotas, plans);
      if (plans.some((one) => one.isAhead && one.slots.some((slot) => slot.skipReason))) return [];
      const written = await write(tx, plans);
      await events.appendAll(tx, written.map(eventOf));
      return written;
    });
    options.doorbell.recorded(runs);
  } catch (error) {
    if (isPassing(error)) throw error;
    const reason = `its due slot could not be recorded: ${error instanceof Error ? error.message : String(error)}`;
    options.log.error(
      { err: error, orgId: name.orgId, watcherId: name.watcherId },
      "a watcher was set aside",
    );
    await transaction(db, async (tx) => {
      await schedules.setAside(tx, { ...name, reason });
      await events.append(tx, name.orgId, [
        { kind: "watcher.paused", actor: "pinion", watcherId: name.watcherId, data: { reason } },
      ]);
    });
  }
}

async function write(tx: Db, plans: readonly Plan[]): Promise<schedules.RecordedRun[]> {
  if (plans.length === 0) return [];
  await schedules.putAside(
    tx,
    plans.flatMap((plan) => plan.aside),
  );
  const written = await schedules.record(
    tx,
    plans.flatMap((plan) => plan.slots),
    plans.map((plan) => plan.move),
  );
  await alerts.alert(tx, written.flatMap(alertsOfSlot));
  return written;
}

/**
 * Two concurrent passes, each over different watchers: while PostgreSQL writes for one pass, the
 * other pass plans.
 */
async function catchUp(options: PassOptions & { db: Db }): Promise<number> {
  const passes = [newestPerPass, 0].map((newest) => materializeOnce(options.db, { ...options, newest }));
  const results = await Promise.allSettled(passes);
  let due = 0;
  for (const result of results) {
    if (result.status === "rejected") throw result.reason;
    due += result.value;
  }
  return due;
}

/**
 * Watchers per transaction ahead: a slot that falls due meanwhile waits for one such transaction at
 * most.
 */
const aheadPerPassMax = 500;
/**
 * Maximum milliseconds that a slot is recorded ahead. The end of a larger crowd is late, as without
 * recording ahead.
 */
const aheadMsMax = 60_000;
/** The sizes of crowds that are checked, in slots. */
const crowds = [1_000, 4_000, 16_000, 64_000, 256_000];
/** Assumed slots recorded per second, before the first measurement. */
const rateAtFirst = 2_000;
/** Factor by which the start for a crowd is earlier than the measured rate requires. */
const crowdMargin = 1.5;

/**
 * Records slots ahead of their due time, in passes: all slots due within `aheadMs` milliseconds,
 * and a crowd that needs longer for recording earlier by the needed time.
 */
export function createAhead(options: PassOptions & { db: Db; aheadMs: number }) {
  const { db, aheadMs } = options;
  /** Slots due up to this time were processed ahead; the remaining slots are decided when due. */
  let through = 0;
  let perMs = rateAtFirst / 1_000;
  /**
   * The time up to which the current series of passes continues, before the next crowd is searched.
   */
  let reachMs = 0;

  /** The start of the next pass and the end of its range, in milliseconds since 1970. */
  async function findBegin(beyondMs: number, nowMs: number): Promise<{ beginMs: number; untilMs: number }> {
    // Half of the time is for slots that follow: at a hundred per second, a hundred are recorded
    // together.
    let beginMs = beyondMs - aheadMs / 2;
    let untilMs = Math.max(nowMs, beginMs) + aheadMs;
    for (const count of crowds) {
      const dueMs = await schedules.findCrowd(db, through, count);
      if (dueMs === undefined || dueMs > nowMs + aheadMsMax) break;
      const neededMs = Math.min(aheadMsMax, aheadMs / 2 + (count / perMs) * crowdMargin);
      if (dueMs - neededMs > beginMs) continue;
      beginMs = dueMs - neededMs;
      untilMs = Math.max(untilMs, dueMs);
    }
    return { beginMs, untilMs };
  }

  return {
    get through() {
      return through;
    },
    /** Restarts the search: slots may have moved into the processed range. */
    forget() {
      through = 0;
      reachMs = 0;
    },
    /**
     * Records the slots that are due for recording; returns the start of the next pass in
     * milliseconds since 1970, if any.
     */
    async pass({ nowMs, beyondMs }: schedules.Outlook): Promise<number | undefined> {
      // The clock was set back.
      if (through > nowMs + 2 * aheadMsMax) through = 0;
      if (beyondMs === null || aheadMs === 0) return undefined;
      if (beyondMs > reachMs || nowMs > reachMs) {
        const { beginMs, untilMs } = await findBegin(beyondMs, nowMs);
        if (beginMs > nowMs) return beginMs;
        reachMs = untilMs;
      }
      const untilMs = reachMs;
      const startedAt = performance.now();
      const untilAt = new Date(untilMs);
      const { watchers, recorded } = await passOver(
        db,
        options,
        (tx) =>
          schedules.lockAhead(tx, { after: through, withinMs: untilMs - nowMs, limit: aheadPerPassMax }),
        (watcher) => planAhead(watcher, untilAt),
      );
      if (recorded >= aheadPerPassMax / 2) perMs = (perMs + recorded / (performance.now() - startedAt)) / 2;
      // Slots left to their due time by the last pass are not counted again.
      if (watchers < aheadPerPassMax || recorded < aheadPerPassMax / 2) {
        through = untilMs;
        reachMs = 0;
      }
      return nowMs;
    },
  };
}

/**
 * Starts the materializer. `sweepMs`: maximum milliseconds of sleep, for slots that another
 * replica's writes made due. `aheadMs`: milliseconds that slots are recorded before they are due;
 * 0: slots are recorded when due.
 */
export function startMaterializer(options: {
  db: Db;
  clock: DatabaseClock;
  doorbell: Doorbell;
  log: Logger;
  quotas: Quotas;
  hold: NonNullable<PassOptions["hold"]>;
  judge: NonNullable<PassOptions["judge"]>;
  sweepMs: number;
  aheadMs: number;
}): Loop {
  const { db, clock, sweepMs } = options;
  const ahead = createAhead(options);
  let isBehind = false;
  let againMs = passedOverMs;
  const look = () =>
    clock.read(
      () => schedules.lookAhead(db, ahead.through),
      ({ nowMs }) => nowMs,
    );

  /** Returns the milliseconds to sleep. */
  async function materialize(): Promise<number> {
    const due = isBehind ? await catchUp(options) : await materializeOnce(db, options);
    isBehind = due >= watchersPerPassMax;
    if (isBehind) return 0;
    const outlook = await look();
    const { dueMs, hasBacklog } = outlook;
    if (hasBacklog && (await materializeBacklogOnce(db, options)) > 0) return 0;
    const isDue = dueMs !== null && dueMs <= outlook.nowMs;
    // The slot fell due during the last pass.
    if (isDue && due > 0) return 0;
    if (isDue || hasBacklog) {
      const waitMs = againMs;
      againMs = Math.min(2 * againMs, passedOverMsMax);
      return waitMs;
    }
    againMs = passedOverMs;
    const beginMs = await ahead.pass(outlook);
    const wakeMs = Math.min(dueMs ?? Number.POSITIVE_INFINITY, beginMs ?? Number.POSITIVE_INFINITY);
    // A fraction of a millisecond early: the slot is due when the statement arrives.
    return Math.min(Math.max(0, Math.floor(wakeMs - clock.now())), sweepMs);
  }

  const loop = startLoop({
    name: "materializer",
    log: options.log,
    async pass() {
      try {
        return await materialize();
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
