import type { DatabaseClock } from "../database-clock.ts";
import { refuse } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { Quotas } from "../store/people/quotas.ts";
import { type Db, isPassing, mayBeOfOneRow, transaction } from "../store/pg/database.ts";
import { isOpen as isInDoubt } from "../store/work/clock-jumps.ts";
import * as deliveries from "../store/work/deliveries.ts";
import * as events from "../store/work/events.ts";
import * as schedules from "../store/work/schedules.ts";
import { type Clock, ClockInDoubt, elapsedMs } from "./clock.ts";
import type { HeldSeats } from "./dispatcher.ts";
import type { Doorbell } from "./doorbell.ts";
import { type Loop, startLoop } from "./loop.ts";
import { alertsOfSlot } from "./notices.ts";
import { type Plan, planAhead, planBacklog, planDue, slotsPerPassMax } from "./plan.ts";
import { eventOf } from "./recorded-event.ts";
import { keepWithin } from "./run-limit.ts";

/**
 * Turns due slots into rows: a run, or a skipped run with its reason (R2), in the transaction that moves the schedule
 * (R3). Any number of replicas may do it at once: each locks other watchers. It sleeps until shortly before the next slot is
 * due: a run whose watcher has no active one is recorded ahead, and claimed where its device is connected here, so that nothing
 * has to begin at its moment but the write of its frame. All else is decided when the slot falls due.
 */

/** Watchers per transaction. */
const watchersPerPassMax = 1_000;
/** So many of those that fell due last are in each pass while more are due than one takes: a herd delays itself, and nobody after it. */
const newestPerPass = 100;

/**
 * Slots per transaction. After a downtime its watchers share them, so that no pass plans and writes for seconds while a
 * slot that is due now waits behind it.
 */
export const slotsPerTransactionMax = 5_000;

/**
 * How soon to look again for what is due and was passed over: it fell due in this moment, or somebody else holds it. Doubles
 * with each look that finds it still so.
 */
const passedOverMs = 1;
const passedOverMsMax = 50;

/** How soon to look again while the database's clock is in doubt. */
const inDoubtMs = 1_000;

type PassOptions = {
  doorbell: Doorbell;
  log: Logger;
  /** Without them, an org may have any number of active runs. */
  quotas?: Quotas;
  /** The sessions of this replica that claim runs as they are recorded; see Dispatcher.hold. */
  hold?: ((devices: readonly Device[]) => HeldSeats) | undefined;
  /** Judges the time by which the slots are due. Without one it is taken as it is. */
  judge?: Pick<Clock, "require">;
};

type Device = { orgId: string; deviceId: string | null };

/**
 * Records the due slots of up to `limit` watchers, the longest due first, and of up to `newest` that fell due last;
 * answers how many watchers it looked at.
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

/** Rounds of at most slotsPerPassMax slots that one edit of a watcher waits for. */
const roundsBeforeEditMax = 40;

/**
 * Records the due slots of one watcher in the caller's transaction, before its schedule is edited, paused or resumed.
 * Answers the rows, whose events ({@link eventOf}) the caller appends as its last statement. Without quotas, the org may
 * have any number of active runs.
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
    if (round === 0 && (await isInDoubt(tx))) {
      refuse(
        "failed_precondition",
        "the database's clock jumped, so it is not known which slots are due; `pinion doctor` says more",
      );
    }
    const plan = planDue(watcher);
    if (quotas) await keepWithin(tx, quotas, [plan]);
    recorded.push(...(await write(tx, [plan])));
  }
  // All slots that are due have to be recorded before the schedule moves (R2).
  refuse("aborted", "the watcher is far behind its schedule and is catching up; try again in a moment", {
    retryAfterMs: 5_000,
  });
}

/** `slotsMax`: slots that it may take of this watcher; the others stay due. */
type Planner = (watcher: schedules.DueWatcher, slotsMax: number) => Plan;

/** What each of so many watchers may take of one transaction; at least one slot, so that every pass gets further. */
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

/** How many watchers it looked at, and of how many it recorded something. */
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
      // Of a try that lost against others.
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
        // A slot that has no room ahead of its moment may have it when that comes.
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
    // The others are done; those are due still, and the next pass begins later for them.
    if (left.length > 0) throw left[0];
    recorded = names.length;
  }
  return { watchers: names.length, recorded };
}

type PlannedSlot = { slot: schedules.SlotRecord; deviceId: string | null };

/** Has runs for devices of this replica claimed by the statement that writes them. */
function claimAsRecorded(options: PassOptions, slots: readonly PlannedSlot[]): HeldSeats | undefined {
  const runs = slots.filter(({ slot }) => slot.skipReason === null);
  const seats = options.hold?.(runs.map(({ slot, deviceId }) => ({ orgId: slot.orgId, deviceId })));
  runs.forEach(({ slot }, index) => {
    slot.claimant = seats?.claimants[index];
  });
  return seats;
}

/**
 * R9: a watcher that makes its batch fail is set aside by itself, and reported, if that is its own fault. What may pass (see
 * isPassing) is thrown: no watcher is paused because a disk is full.
 */
async function planAlone(
  db: Db,
  options: PassOptions,
  name: schedules.WatcherName,
  plan: (watcher: schedules.DueWatcher, slotsMax: number) => Plan | undefined,
): Promise<void> {
  try {
    const runs = await transaction(db, async (tx) => {
      const watcher = await schedules.lockOne(tx, name);
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
  await deliveries.alert(tx, written.flatMap(alertsOfSlot));
  return written;
}

/** What the log says of a recorded run. */
/** Two passes at once, each with watchers of its own: while PostgreSQL writes for one, the other is planned. */
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

/** Watchers per transaction of what is not due yet: what falls due meanwhile waits for one of these at most. */
const aheadPerPassMax = 500;
/** So early, at the most, is a slot recorded ahead. A crowd that takes longer is late for its end, as it would be without. */
const aheadMsMax = 60_000;
/** The crowds that are looked for. */
const crowds = [1_000, 4_000, 16_000, 64_000, 256_000];
/** Slots that are recorded a second, before any was measured. */
const rateAtFirst = 2_000;
/** A crowd is begun with so much earlier than the rate alone says. */
const crowdMargin = 1.5;

/**
 * Records slots ahead of their moment, in passes: all that fall due within `aheadMs`, and of a crowd that takes longer to
 * record than that, as much earlier as it takes.
 */
export function createAhead(options: PassOptions & { db: Db; aheadMs: number }) {
  const { db, aheadMs } = options;
  /** What falls due up to here was looked at ahead; what of it is left is decided at its moment. */
  let through = 0;
  let perMs = rateAtFirst / 1_000;
  /** Up to where passes that were begun with go on, before anything is looked for anew. */
  let reachMs = 0;

  /** When what comes next has to be begun with, in milliseconds since 1970, and up to which moment it then reaches. */
  async function findBegin(beyondMs: number, nowMs: number): Promise<{ beginMs: number; untilMs: number }> {
    // Half of the time is for those that come meanwhile: at a hundred a second, a hundred are recorded together.
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
    /** Has everything looked at again: something may have moved into the time that was looked at. */
    forget() {
      through = 0;
      reachMs = 0;
    },
    /** Records what is to be recorded now; answers when there is more to record, in milliseconds since 1970, if there is. */
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
      // Beyond are those that the last pass left to their moment.
      if (watchers < aheadPerPassMax || recorded < aheadPerPassMax / 2) {
        through = untilMs;
        reachMs = 0;
      }
      return nowMs;
    },
  };
}

/**
 * Starts the materializer. `sweepMs`: how long it sleeps at most, for slots that another replica's writes made due. `aheadMs`: how
 * long before they are due slots are recorded; 0: they are recorded when they are due.
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

  /** Answers how long it may sleep. */
  async function materialize(): Promise<number> {
    const due = isBehind ? await catchUp(options) : await materializeOnce(db, options);
    isBehind = due >= watchersPerPassMax;
    if (isBehind) return 0;
    const outlook = await look();
    const { dueMs, hasBacklog } = outlook;
    if (hasBacklog && (await materializeBacklogOnce(db, options)) > 0) return 0;
    const isDue = dueMs !== null && dueMs <= outlook.nowMs;
    // It fell due while the last pass was under way.
    if (isDue && due > 0) return 0;
    if (isDue || hasBacklog) {
      const waitMs = againMs;
      againMs = Math.min(2 * againMs, passedOverMsMax);
      return waitMs;
    }
    againMs = passedOverMs;
    const beginMs = await ahead.pass(outlook);
    const wakeMs = Math.min(dueMs ?? Number.POSITIVE_INFINITY, beginMs ?? Number.POSITIVE_INFINITY);
    // A fraction of a millisecond early: by the time that the statement is there, the slot is due.
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
