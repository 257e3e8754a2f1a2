import type { Settlement } from "../../../store/work/attempts/settlements.ts";
import type { ClaimedRun } from "../../../store/work/runs/run-claims.ts";
import type { DatabaseClock } from "../../../time/database-clock.ts";
import type { Prepared } from "../stream/link.ts";
import { type DueWheel, earlyMsMax } from "./due-wheel.ts";
import type { AttemptTimes } from "./outstanding.ts";

/**
 * Milliseconds that a due run waits here for a slot; after that it waits in the database, where
 * people see it pending.
 */
const heldMsMax = 10_000;
/**
 * No look-ahead is so long, in milliseconds. A run that seems to be due later has its due time from
 * a clock of the database that was wrong, and is put right there: the run is given back soon, and
 * claimed anew.
 */
const farMs = 3_600_000;
/**
 * Limits the runs that are due and claimed for a device without a free slot: at most the number
 * that the device has lately finished in this time, in milliseconds, so that a freed slot is filled
 * without a query and no run waits long.
 */
const reserveMs = 4_000;
const reserveMax = 32;

/**
 * What a session keeps of a run beside its assignment. The assignment's content would be the larger
 * part of what a replica with many runs ahead has in its memory.
 */
export type HeldName = Pick<
  ClaimedRun,
  "orgId" | "runId" | "watcherId" | "deviceId" | "attemptToken" | "attempt" | "dueAt" | "dueForMs"
>;

/** A run that a session has claimed and not pushed: not yet due, or waiting for a slot. */
type HeldRun = {
  readonly run: HeldName;
  readonly claimMs: number;
  /** The run's assignment; throws if the assignment cannot be made. */
  readonly assignment: () => Prepared;
  /** The due time, in milliseconds since 1970. */
  readonly dueMs: number;
  /** The end of the wait for a slot, in milliseconds since 1970. */
  readonly untilMs: number;
  /** Removes the run's callback from the wheel. */
  forget: () => void;
};

/** Shared by the sessions without runs ahead. */
const noRuns: readonly HeldRun[] = [];

/**
 * The runs that a session has claimed ahead, the soonest due first. Held runs use no slot of the
 * device and are unknown to the device, so taking a run away needs no message. Forgetting the runs
 * loses nothing: the next hello or the sweep gives them back.
 */
class Held {
  #runs = noRuns;

  get size(): number {
    return this.#runs.length;
  }

  at(index: number): HeldRun | undefined {
    return this.#runs[index];
  }

  list(): HeldName[] {
    return this.#runs.map(({ run }) => run);
  }

  has(attemptToken: string): boolean {
    return this.#runs.some(({ run }) => run.attemptToken === attemptToken);
  }

  add(held: HeldRun): void {
    const before = this.#runs.findLastIndex(({ dueMs }) => dueMs <= held.dueMs);
    this.#runs = this.#runs.toSpliced(before + 1, 0, held);
  }

  remove(attemptToken: string): HeldRun | undefined {
    const at = this.#runs.findIndex(({ run }) => run.attemptToken === attemptToken);
    if (at < 0) return undefined;
    const removed = this.#runs[at];
    this.#runs = this.#runs.length === 1 ? noRuns : this.#runs.toSpliced(at, 1);
    removed?.forget();
    return removed;
  }

  /** Takes all out. */
  clear(): readonly HeldRun[] {
    const all = this.#runs;
    this.#runs = noRuns;
    for (const held of all) held.forget();
    return all;
  }
}

/** The settlement of a run that was claimed ahead for a device that leaves. */
const givenBack = {
  action: "withdraw",
  status: "timeout",
  reason: "claimed ahead of its moment; its device left before it was pushed",
} as const;

export type Ending = Pick<Settlement, "action" | "status" | "reason">;

/** The session's side of the runs claimed ahead. */
export type AheadSession = {
  /** The times of the device's attempts. */
  readonly times: AttemptTimes;
  /** Number of further attempts that the device accepts now. */
  slotsLeft(): number;
  /** Pushes a due run. */
  pushHeld(run: HeldName, claimMs: number, assignment: () => Prepared): void;
  /** Encodes the run's assignment; throws if the assignment cannot be made. */
  prepare(run: ClaimedRun): Prepared;
  /** Gives back a run that was never pushed. */
  giveBackHeld(run: HeldName, how: Ending): void;
};

/**
 * The runs that a session has claimed before their due time or before a slot is free. Each run is
 * pushed when it is due by the database's clock and a slot is free, and given back after waiting
 * too long for a slot.
 */
export class Ahead {
  readonly #session: AheadSession;
  readonly #clock: Pick<DatabaseClock, "now">;
  readonly #wheel: Pick<DueWheel, "at">;
  readonly #held = new Held();
  /** The next look at the runs that wait for a slot, in milliseconds since 1970. */
  #lookMs = Number.POSITIVE_INFINITY;
  #forgetLook: (() => void) | undefined;
  #whenDue: (() => void) | undefined;

  constructor(
    session: AheadSession,
    { clock, wheel }: { clock: Pick<DatabaseClock, "now">; wheel: Pick<DueWheel, "at"> },
  ) {
    this.#session = session;
    this.#clock = clock;
    this.#wheel = wheel;
  }

  get size(): number {
    return this.#held.size;
  }

  has(attemptToken: string): boolean {
    return this.#held.has(attemptToken);
  }

  list(): HeldName[] {
    return this.#held.list();
  }

  remove(attemptToken: string): HeldName | undefined {
    return this.#held.remove(attemptToken)?.run;
  }

  isDue(dueMs: number): boolean {
    return dueMs <= this.#clock.now() + earlyMsMax;
  }

  /**
   * Maximum number of runs claimed for a device with the given slots, pushed and ahead together.
   */
  roomFor(slots: number): number {
    const { averageMs } = this.#session.times;
    const reserve = averageMs === undefined ? 0 : (slots * reserveMs) / Math.max(1, averageMs);
    return slots + Math.min(reserveMax, Math.floor(reserve));
  }

  add(run: ClaimedRun, claimMs: number): void {
    const nowMs = this.#clock.now();
    const dueMs = run.dueAt.getTime();
    const assignment = this.#assignmentOf(run);
    const untilMs = Math.max(dueMs, nowMs) + heldMsMax;
    const held = { run: nameOf(run), claimMs, assignment, dueMs, untilMs, forget: () => {} };
    this.#held.add(held);
    held.forget =
      dueMs > nowMs + farMs
        ? this.#wheel.at(nowMs + heldMsMax, () => this.#giveBackFar(held.run.attemptToken))
        : this.#wheel.at(dueMs, this.#pushDueThen);
    this.pushDue();
  }

  /**
   * The assignment, made once; if it cannot be made, pushing the run tries again and fails the run.
   */
  #assignmentOf(run: ClaimedRun): () => Prepared {
    try {
      return always(this.#session.prepare(run));
    } catch {
      return () => this.#session.prepare(run);
    }
  }

  #giveBackFar(attemptToken: string): void {
    const held = this.#held.remove(attemptToken);
    if (!held) return;
    const reason = "its due time was far ahead: the database's clock was wrong";
    this.#session.giveBackHeld(held.run, { ...givenBack, reason });
  }

  /** Pushes due runs while slots are free; a due run without a slot waits for a limited time. */
  pushDue(): void {
    for (let held = this.#held.at(0); held && this.isDue(held.dueMs); held = this.#held.at(0)) {
      if (this.#session.slotsLeft() === 0) {
        this.#letWait();
        return;
      }
      this.#held.remove(held.run.attemptToken);
      this.#session.pushHeld(held.run, held.claimMs, held.assignment);
    }
  }

  /** One function for all calls of the wheel; an idle session needs none. */
  get #pushDueThen(): () => void {
    this.#whenDue ??= () => this.pushDue();
    return this.#whenDue;
  }

  /**
   * Gives back runs that have waited too long for a slot, and looks again when the next one has.
   */
  #letWait(): void {
    const dueMs = this.#clock.now() + earlyMsMax;
    let lookMs = Number.POSITIVE_INFINITY;
    let index = 0;
    for (let held = this.#held.at(0); held && held.dueMs <= dueMs; held = this.#held.at(index)) {
      if (held.untilMs > dueMs) {
        lookMs = Math.min(lookMs, held.untilMs);
        index++;
        continue;
      }
      // The device's attempts take longer than estimated.
      this.#session.times.atLeast(heldMsMax);
      this.#held.remove(held.run.attemptToken);
      this.#session.giveBackHeld(held.run, { ...givenBack, reason: "its device had no free slot for it" });
    }
    this.#lookAgain(lookMs);
  }

  /**
   * Every push and every freed slot comes by here: an earlier look makes the later one needless.
   */
  #lookAgain(atMs: number): void {
    if (atMs >= this.#lookMs) return;
    this.#forgetLook?.();
    this.#lookMs = atMs;
    this.#forgetLook = this.#wheel.at(atMs, () => {
      this.#lookMs = Number.POSITIVE_INFINITY;
      this.pushDue();
    });
  }

  /**
   * Gives back all held runs. If the device has a newer session, its hello has given the runs back
   * already.
   */
  giveBackAll(): void {
    this.#forgetLook?.();
    this.#lookMs = Number.POSITIVE_INFINITY;
    for (const { run } of this.#held.clear()) this.#session.giveBackHeld(run, givenBack);
  }
}

/** Functions of their own, because a function made beside the run would keep the whole run. */
const always = (assignment: Prepared) => () => assignment;

function nameOf(run: ClaimedRun): HeldName {
  const { orgId, runId, watcherId, deviceId, attemptToken, attempt, dueAt, dueForMs } = run;
  return { orgId, runId, watcherId, deviceId, attemptToken, attempt, dueAt, dueForMs };
}
