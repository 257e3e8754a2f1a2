import type { DatabaseClock } from "../../database-clock.ts";
import type { ClaimedRun } from "../../store/work/attempts.ts";
import type { Settlement } from "../../store/work/settlements.ts";
import { type DueWheel, earlyMsMax } from "./due-wheel.ts";
import { Held, type HeldRun } from "./held.ts";
import type { Prepared } from "./link.ts";

/** How long a run that is due waits here for a slot; then it waits in the database, where people see that it is pending. */
const heldMsMax = 10_000;
/**
 * Runs that are due and claimed for a device whose slots are used: as many as it has lately worked off in this time, so that a
 * slot that becomes free is filled without asking, and no run stays long.
 */
const reserveMs = 2_000;
const reserveMax = 32;
/** Of the moving average of how long an attempt takes: the share of the latest attempt. */
const latestShare = 0.25;

/** What becomes of a run that was claimed ahead for a device that leaves. */
const givenBack = {
  action: "withdraw",
  status: "timeout",
  reason: "claimed ahead of its moment; its device left before it was pushed",
} as const;

export type Ending = Pick<Settlement, "action" | "status" | "reason">;

/** What the runs claimed ahead ask of their session. */
export type AheadSession = {
  /** How many more attempts the device takes now. */
  freeSlots(): number;
  /** Pushes a run that is due. */
  push(run: ClaimedRun, claimMs: number, assignment: Prepared | undefined): void;
  /** Makes its assignment ready; throws where that is not possible. */
  prepare(run: ClaimedRun): Prepared;
  /** Gives a run back that was never pushed. */
  giveBack(run: ClaimedRun, how: Ending): void;
};

/**
 * The runs that a session has claimed ahead of their moment, or of a free slot: each is pushed when it is due by the
 * database's clock and a slot is free, and given back when it has waited for a slot too long.
 */
export class Ahead {
  readonly #session: AheadSession;
  readonly #clock: Pick<DatabaseClock, "now">;
  readonly #wheel: Pick<DueWheel, "at">;
  readonly #held = new Held();
  /** How long the device takes from a push to its completion, in milliseconds; undefined before the first. */
  #attemptMs: number | undefined;

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

  list(): readonly HeldRun[] {
    return this.#held.list();
  }

  remove(attemptToken: string): HeldRun | undefined {
    return this.#held.remove(attemptToken);
  }

  isDue(dueMs: number): boolean {
    return dueMs <= this.#clock.now() + earlyMsMax;
  }

  /** An attempt of the device took so long. */
  took(ms: number): void {
    this.#attemptMs = (this.#attemptMs ?? ms) * (1 - latestShare) + ms * latestShare;
  }

  /** How many runs a device with so many slots may have claimed at once, on it and ahead. */
  roomFor(slots: number): number {
    const reserve = this.#attemptMs === undefined ? 0 : (slots * reserveMs) / Math.max(1, this.#attemptMs);
    return slots + Math.min(reserveMax, Math.floor(reserve));
  }

  add(run: ClaimedRun, claimMs: number): void {
    const dueMs = run.dueAt.getTime();
    let assignment: Prepared | undefined;
    try {
      assignment = this.#session.prepare(run);
    } catch {
      // It fails when it is pushed.
    }
    const untilMs = Math.max(dueMs, this.#clock.now()) + heldMsMax;
    const forget = this.#wheel.at(dueMs, () => this.pushDue());
    this.#held.add({ run, claimMs, assignment, dueMs, untilMs, forget });
    this.pushDue();
  }

  /** Pushes what is held and due, while there are slots; a run that finds none waits for a slot, but not for long. */
  pushDue(): void {
    for (let held = this.#held.first(); held && this.isDue(held.dueMs); held = this.#held.first()) {
      if (this.#session.freeSlots() === 0) {
        this.#letWait();
        return;
      }
      this.#held.remove(held.run.attemptToken);
      this.#session.push(held.run, held.claimMs, held.assignment);
    }
  }

  /** Gives back what has waited too long for a slot, and sees to it that the rest is looked at in time. */
  #letWait(): void {
    for (const held of [...this.#held.list()]) {
      if (!this.isDue(held.dueMs)) break;
      if (!this.isDue(held.untilMs)) {
        held.forget();
        held.forget = this.#wheel.at(held.untilMs, () => this.pushDue());
        continue;
      }
      // It takes longer than was thought.
      this.#attemptMs = Math.max(this.#attemptMs ?? 0, heldMsMax);
      this.#held.remove(held.run.attemptToken);
      this.#session.giveBack(held.run, { ...givenBack, reason: "its device had no free slot for it" });
    }
  }

  /** All is free again; of a device that a newer session has, that session's hello has seen to it. */
  giveBackAll(): void {
    for (const { run } of this.#held.clear()) this.#session.giveBack(run, givenBack);
  }
}
