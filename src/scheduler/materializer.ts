import { refuse } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { Quotas } from "../store/people/quotas.ts";
import { type Db, isPassing, isUnavailable, transaction } from "../store/pg/database.ts";
import { isOpen as isInDoubt } from "../store/work/clock-jumps.ts";
import * as events from "../store/work/events.ts";
import * as schedules from "../store/work/schedules.ts";
import { type Clock, ClockInDoubt, elapsedMs } from "./clock.ts";
import type { HeldClaim } from "./dispatcher.ts";
import type { Doorbell } from "./doorbell.ts";
import { type Loop, startLoop } from "./loop.ts";
import { type Plan, planBacklog, planDue, slotsPerPassMax } from "./plan.ts";
import { keepWithin } from "./run-limit.ts";

/**
 * Turns due slots into rows: a run, or a skipped run with its reason (R2), in the transaction that moves the schedule
 * (R3). Any number of replicas may do it at once: each locks other watchers. It sleeps until the next slot is due.
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
  /** Claims runs that were just written for devices of this replica, in the transaction that wrote them. */
  claimHere?: ((tx: Db, runs: readonly schedules.RecordedRun[]) => Promise<HeldClaim>) | undefined;
  /** Judges the time by which the slots are due. Without one it is taken as it is. */
  clock?: Pick<Clock, "require">;
};

/** Runs of a pass that are claimed with it. Beyond, claims are made beside the passes, and other watchers do not wait for them. */
const claimedWithinMax = 50;

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
 * Answers the events of that, for the caller to append. Without quotas, the org may have any number of active runs.
 */
export async function recordDue(
  tx: Db,
  orgId: string,
  watcherId: string,
  quotas?: Quotas,
): Promise<events.NewEvent[]> {
  const recorded: events.NewEvent[] = [];
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
    recorded.push(...(await write(tx, [plan])).map(eventOf));
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
  let names: schedules.WatcherName[] = [];
  let claim: HeldClaim | undefined;
  let isClaiming = false;
  try {
    const runs = await transaction(db, async (tx) => {
      const sentAtMs = elapsedMs();
      // Of a try that lost against others.
      claim?.drop();
      claim = undefined;
      isClaiming = false;
      const watchers = await lock(tx);
      if (watchers[0]) options.clock?.require(watchers[0].now, sentAtMs);
      names = watchers;
      const slotsMax = shareOf(watchers.length);
      const plans = watchers.map((watcher) => plan(watcher, slotsMax));
      if (options.quotas) await keepWithin(tx, options.quotas, plans);
      const written = await write(tx, plans);
      if (options.claimHere && written.length <= claimedWithinMax) {
        isClaiming = true;
        claim = await options.claimHere(tx, written);
        isClaiming = false;
      }
      await events.appendAll(tx, written.map(eventOf));
      return written;
    });
    options.doorbell.recorded(runs, claim?.runIds);
    claim?.deliver();
  } catch (error) {
    claim?.drop();
    // Slots are recorded, whatever becomes of the claim.
    if (isClaiming && !isUnavailable(error))
      return pass(db, { ...options, claimHere: undefined }, lock, plan);
    if (isPassing(error) || names.length === 0) throw error;
    options.log.error(
      { err: error, watchers: names.length },
      "a batch of watchers failed; trying them one by one",
    );
    for (const name of names) await planAlone(db, options, name, plan);
  }
  return names.length;
}

/** R9: a watcher that makes its batch fail is set aside by itself, and reported. */
async function planAlone(
  db: Db,
  options: PassOptions,
  name: schedules.WatcherName,
  plan: Planner,
): Promise<void> {
  try {
    const runs = await transaction(db, async (tx) => {
      const watcher = await schedules.lockOne(tx, name);
      const plans = watcher ? [plan(watcher, slotsPerPassMax)] : [];
      if (options.quotas) await keepWithin(tx, options.quotas, plans);
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
  return schedules.record(
    tx,
    plans.flatMap((plan) => plan.slots),
    plans.map((plan) => plan.move),
  );
}

export function eventOf(run: schedules.RecordedRun): events.NewEvent {
  return {
    orgId: run.orgId,
    kind: run.status === "skipped" ? "run.skipped" : "run.created",
    actor: "pinion",
    runId: run.runId,
    watcherId: run.watcherId,
    deviceId: run.deviceId,
    data: {
      ...(run.scheduledFor ? { scheduled_for: run.scheduledFor.toISOString() } : {}),
      ...(run.skipReason ? { skip_reason: run.skipReason, reason: run.reason } : {}),
    },
  };
}

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

/** Starts the materializer. `sweepMs`: how long it sleeps at most, for slots that another replica's writes made due. */
export function startMaterializer(options: {
  db: Db;
  doorbell: Doorbell;
  log: Logger;
  quotas: Quotas;
  claimHere: NonNullable<PassOptions["claimHere"]>;
  clock: NonNullable<PassOptions["clock"]>;
  sweepMs: number;
}): Loop {
  let isBehind = false;
  let againMs = passedOverMs;

  /** Answers how long it may sleep. */
  async function materialize(): Promise<number> {
    const due = isBehind ? await catchUp(options) : await materializeOnce(options.db, options);
    isBehind = due >= watchersPerPassMax;
    if (isBehind) return 0;
    const { nextDueMs, hasBacklog } = await schedules.lookAhead(options.db);
    if (hasBacklog && (await materializeBacklogOnce(options.db, options)) > 0) return 0;
    // It fell due while the last pass was under way.
    if (nextDueMs === 0 && due > 0) return 0;
    if (nextDueMs === 0 || hasBacklog) {
      const waitMs = againMs;
      againMs = Math.min(2 * againMs, passedOverMsMax);
      return waitMs;
    }
    againMs = passedOverMs;
    // A fraction of a millisecond early: by the time that the statement is there, the slot is due.
    return Math.min(Math.floor(nextDueMs ?? options.sweepMs), options.sweepMs);
  }

  return startLoop({
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
}
