import { fullText, type Quotas } from "../../store/people/orgs/quotas.ts";
import { type Db, transaction } from "../../store/pg/database.ts";
import { isOfData, mayBeOfOneRow, takingData } from "../../store/pg/failures.ts";
import { keepPlans } from "../../store/pg/plans.ts";
import { sendWaiting } from "../../store/pg/round-trips.ts";
import * as alerts from "../../store/work/messages/alerts.ts";
import type { ClaimedRun } from "../../store/work/runs/run-claims.ts";
import type { NewEvent } from "../../store/work/service/events.ts";
import * as events from "../../store/work/service/events.ts";
import type { SessionName } from "../../store/work/service/presence.ts";
import * as schedules from "../../store/work/watchers/schedules.ts";
import * as slotRows from "../../store/work/watchers/slot-rows.ts";
import type { Logger } from "../../telemetry/log.ts";
import type { Doorbell } from "../doorbell.ts";
import { alertsOfSlot } from "../endings/notices.ts";
import { type Clock, elapsedMs } from "./clock.ts";
import { type Plan, slotsPerPassMax } from "./plan.ts";

/** Reserves the sessions of devices for runs that are about to be recorded (Dispatcher.hold). */
export type Hold = (devices: readonly { orgId: string; deviceId: string | null }[]) => HeldSeats;

/**
 * Seats reserved for a transaction that is not committed yet. The caller calls `deliver` or `drop`,
 * once.
 */
export type HeldSeats = {
  claimants: readonly (SessionName | undefined)[];
  /** After the commit: delivers the claimed runs to the seats. */
  deliver(claimed: readonly ClaimedRun[]): void;
  /** After a rollback: releases the seats. */
  drop(): void;
};

/** The runs of a transaction; read after the commit, once. */
export type WrittenRuns = () => readonly slotRows.RecordedRun[];

/**
 * Records runs in a transaction, and announces them after the commit. A run that `fn` names to
 * `claim` before it writes the run is claimed by the same statement, if its device's session is on
 * the replica and has room; after the commit the session has the run.
 */
export async function recording<Done extends { written: WrittenRuns }>(
  db: Db,
  { doorbell, hold }: { doorbell: Doorbell; hold?: Hold | undefined },
  fn: (tx: Db, claim: Claim) => Promise<Done>,
): Promise<Done> {
  let seats: HeldSeats | undefined;
  const release = () => {
    seats?.drop();
    seats = undefined;
  };
  let done: Done;
  try {
    done = await transaction(db, async (tx) => {
      // Left from a try that was rolled back.
      release();
      await keepPlans(tx);
      return fn(tx, (slots) => {
        release();
        seats = hold && claimBy(hold, slots);
      });
    });
  } catch (error) {
    release();
    throw error;
  }
  // Within a transaction of the caller, the commit is still to come.
  if (db.isTransaction) await sendWaiting(db);
  const written = done.written();
  if (written.length > 0) doorbell.recorded(written);
  seats?.deliver(written.filter(slotRows.isClaimed));
  return done;
}

function claimBy(hold: Hold, slots: readonly PlannedSlot[]): HeldSeats {
  const runs = slots.filter(({ slot }) => slot.skipReason === null);
  const seats = hold(runs.map(({ slot, deviceId }) => ({ orgId: slot.orgId, deviceId })));
  runs.forEach(({ slot }, index) => {
    slot.claimant = seats.claimants[index];
  });
  return seats;
}

/**
 * A pass over watchers: locks some, plans their slots, and records the plans, in one transaction.
 *
 *   lock ─▶ plan ─▶ quota ─▶ record, and claim ─▶ events ─▶ commit ─▶ announced, and at its session
 *     └─ a row makes the transaction fail ─▶ each watcher alone; the bad one is set aside (R9)
 */

/**
 * Maximum slots per transaction. After a downtime the watchers of the transaction share the slots,
 * so that no pass takes seconds while a slot that is due now waits.
 */
export const slotsPerTransactionMax = 5_000;

export type PassOptions = {
  doorbell: Doorbell;
  log: Logger;
  /** Without them, an org may have any number of active runs. */
  quotas?: Quotas;
  /** The sessions of the replica that claim runs while they are recorded; see Dispatcher.hold. */
  hold?: Hold | undefined;
  /** Checks the time by which the slots are due. Undefined: the time is accepted. */
  judge?: Pick<Clock, "require">;
};

/**
 * Plans a locked watcher; undefined: nothing to record. `slotsMax`: maximum slots; further slots
 * stay due.
 */
export type Planner = (watcher: schedules.DueWatcher, slotsMax: number) => Plan | undefined;

/** Number of watchers processed, and number of watchers with a recorded slot. */
export type Passed = { watchers: number; recorded: number };

/** The two parts of a pass: what it locks, and how it plans. */
export type Pass = { lock: (tx: Db) => Promise<schedules.DueWatcher[]>; plan: Planner };

export async function passOver(db: Db, options: PassOptions, { lock, plan }: Pass): Promise<Passed> {
  let names: schedules.WatcherName[] = [];
  let recorded = 0;
  try {
    await recording(db, options, async (tx, claim) => {
      const sentAtMs = elapsedMs();
      const watchers = await lock(tx);
      if (watchers[0]) options.judge?.require(watchers[0].now, sentAtMs);
      names = watchers;
      const slotsMax = shareOf(watchers.length);
      const planned = await planWithin(tx, options, watchers, (watcher) => plan(watcher, slotsMax));
      claim(
        planned.flatMap(({ plan: { slots }, watcher: { deviceId } }) =>
          slots.map((slot) => ({ slot, deviceId })),
        ),
      );
      const written = await writeWithEvents(tx, planned);
      recorded = planned.length;
      return { written: () => written };
    });
  } catch (error) {
    if (!mayBeOfOneRow(error) || names.length === 0) throw error;
    options.log.error(
      { err: error, watchers: names.length },
      "a batch of watchers failed; trying them one by one",
    );
    await passOneByOne(db, options, names, plan);
    recorded = names.length;
  }
  return { watchers: names.length, recorded };
}

/**
 * Maximum slots of each watcher in a transaction; at least one, so that every pass makes progress.
 */
function shareOf(watchers: number): number {
  return Math.min(slotsPerPassMax, Math.max(1, Math.floor(slotsPerTransactionMax / watchers)));
}

type Planned = { watcher: schedules.DueWatcher; plan: Plan };

/** A watcher whose own data allows no plan, such as a schedule that cannot be read. */
class NoPlan extends Error {}

function planFrom(
  watcher: schedules.DueWatcher,
  planOf: (watcher: schedules.DueWatcher) => Plan | undefined,
): Plan | undefined {
  try {
    return planOf(watcher);
  } catch (error) {
    throw new NoPlan(error instanceof Error ? error.message : String(error), { cause: error });
  }
}

/** The plans of the watchers, held to the quotas of their orgs. */
async function planWithin(
  tx: Db,
  { quotas }: PassOptions,
  watchers: readonly schedules.DueWatcher[],
  planOf: (watcher: schedules.DueWatcher) => Plan | undefined,
): Promise<Planned[]> {
  const planned = watchers.flatMap((watcher) => {
    const plan = planFrom(watcher, planOf);
    return plan ? [{ watcher, plan }] : [];
  });
  if (quotas) {
    await keepWithin(
      tx,
      quotas,
      planned.map(({ plan }) => plan),
    );
  }
  // A slot beyond the quota ahead of its due time may be within the quota when due.
  return planned.filter(({ plan }) => !plan.isAhead || plan.slots.every((slot) => !slot.skipReason));
}

/**
 * Passes over each watcher by itself. All but the failed watchers are done when it throws.
 *
 * R9: a watcher whose own data is the cause is set aside and reported: its plan fails, or the
 * database refuses the rows of the plan for ever. No watcher is paused for another error: a full
 * disk, a clock in doubt, an event that cannot be written. If the database refuses the rows of
 * every watcher of several, then the cause is none of them.
 */
async function passOneByOne(
  db: Db,
  options: PassOptions,
  names: readonly schedules.WatcherName[],
  plan: Planner,
): Promise<void> {
  const left: unknown[] = [];
  const refused: { name: schedules.WatcherName; failure: unknown }[] = [];
  for (const name of names) {
    await planAlone(db, options, name, plan).catch((failure: unknown) => {
      if (!mayBeOfOneRow(failure)) throw failure;
      if (failure instanceof NoPlan || isOfData(failure)) refused.push({ name, failure });
      else left.push(failure);
    });
  }
  const isOfAll =
    names.length > 1 && refused.filter(({ failure }) => isOfData(failure)).length === names.length;
  if (isOfAll) left.push(refused[0]?.failure);
  else for (const { name, failure } of refused) await setAside(db, options, name, failure);
  // The failed watchers stay due, and the next pass is delayed for them.
  if (left.length > 0) throw left[0];
}

async function planAlone(
  db: Db,
  options: PassOptions,
  name: schedules.WatcherName,
  plan: Planner,
): Promise<void> {
  const runs = await transaction(db, async (tx) => {
    const sentAtMs = elapsedMs();
    const watcher = await schedules.lockOne(tx, name);
    if (!watcher) return [];
    options.judge?.require(watcher.now, sentAtMs);
    const planned = await planWithin(tx, options, [watcher], (one) => plan(one, slotsPerPassMax));
    return writeWithEvents(tx, planned);
  });
  options.doorbell.recorded(runs);
}

async function setAside(
  db: Db,
  { log }: PassOptions,
  name: schedules.WatcherName,
  failure: unknown,
): Promise<void> {
  const reason = `its due slot could not be recorded: ${failure instanceof Error ? failure.message : String(failure)}`;
  log.error({ err: failure, orgId: name.orgId, watcherId: name.watcherId }, "a watcher was set aside");
  await transaction(db, async (tx) => {
    await schedules.setAside(tx, { ...name, reason });
    await events.append(tx, name.orgId, [
      { kind: "watcher.paused", actor: "pinion", watcherId: name.watcherId, data: { reason } },
    ]);
  });
}

async function writeWithEvents(tx: Db, planned: readonly Planned[]): Promise<slotRows.RecordedRun[]> {
  const written = await write(
    tx,
    planned.map(({ plan }) => plan),
  );
  await events.appendAll(tx, written.map(eventOf));
  return written;
}

/** A slot to be recorded, with the pin of its watcher; null: no pin, or the run is placed first. */
export type PlannedSlot = { slot: slotRows.SlotRecord; deviceId: string | null };

/** Reserves the sessions of the replica whose devices may have these runs at once. */
export type Claim = (slots: readonly PlannedSlot[]) => void;

/**
 * Turns runs beyond their org's limit of active runs into skipped runs, so that each slot has its
 * row (R2) and the schedule moves on (R3). Changes the plans in place, first come, first served.
 */
export async function keepWithin(tx: Db, quotas: Quotas, plans: readonly Plan[]): Promise<void> {
  const wanted = plans.flatMap((plan) =>
    plan.slots.filter(({ skipReason }) => skipReason === null).map((slot) => ({ plan, slot })),
  );
  if (wanted.length === 0) return;
  const found = await quotas.find(tx, "runs", [...new Set(wanted.map(({ slot }) => slot.orgId))]);
  const taken = new Map<string, number>();
  for (const { plan, slot } of wanted) {
    const { max, room } = found.get(slot.orgId)!;
    const before = taken.get(slot.orgId) ?? 0;
    if (before < room) {
      taken.set(slot.orgId, before + 1);
      continue;
    }
    slot.skipReason = "limit";
    slot.reason = fullText(max);
    plan.move.lastRunAt = null;
  }
  for (const [orgId, made] of taken) quotas.add("runs", orgId, made);
}

/** Writes plans of locked watchers; returns the rows, whose events the caller appends last. */
export async function write(tx: Db, plans: readonly Plan[]): Promise<slotRows.RecordedRun[]> {
  if (plans.length === 0) return [];
  const written = await takingData(async () => {
    await slotRows.putAside(
      tx,
      plans.flatMap((plan) => plan.aside),
    );
    return slotRows.record(
      tx,
      plans.flatMap((plan) => plan.slots),
      plans.map((plan) => plan.move),
    );
  });
  await alerts.alert(tx, written.flatMap(alertsOfSlot));
  return written;
}

type EventFacts = Pick<
  slotRows.RecordedRun,
  "orgId" | "runId" | "watcherId" | "deviceId" | "status" | "scheduledFor" | "skipReason" | "reason"
>;

/** The event of a recorded run. */
export function eventOf(run: EventFacts): NewEvent {
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
