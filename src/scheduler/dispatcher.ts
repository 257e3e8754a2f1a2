import { isUnavailable } from "../store/pg/failures.ts";
import type * as runClaims from "../store/work/runs/run-claims.ts";
import type { SessionName } from "../store/work/service/presence.ts";
import { Claims, type ClaimsOptions, type Seat } from "./claims.ts";
import type { HeldSeats } from "./slots/recording.ts";

/** Seats per claim statement. */
const seatsPerBatchMax = 1_000;

/**
 * Claims work for seats that were woken, in batches: one statement serves all seats woken during
 * the previous statement.
 *
 *   idle ──wake──▶ woken ──room, and work may wait──▶ engaged ──claim──▶ delivered ──▶ idle
 *                    ▲                                   │
 *                    └─────── more than its share ───────┘
 */
export class Dispatcher {
  readonly #options: ClaimsOptions;
  readonly #claims: Claims;
  readonly #woken = new Set<Seat>();
  /** Seats in running claims: all their room is reserved. */
  readonly #engaged = new Set<Seat>();
  /** Number of runs that open transactions may claim for a seat as they record them. */
  readonly #reserved = new Map<Seat, number>();
  /** Work that runs concurrently with the claims. */
  readonly #underWay = new Set<Promise<void>>();
  #running: Promise<void> | undefined;

  constructor(options: ClaimsOptions) {
    this.#options = options;
    this.#claims = new Claims(options, (seat) => this.#woken.add(seat));
  }

  /** Reports that a seat may get work: a slot freed, a session opened, or work was announced (`mayHave`). */
  wake(seat: Seat): void {
    this.#woken.add(seat);
    this.#running ??= this.#drain();
  }

  /**
   * Chooses the sessions that may claim runs while they are recorded: for each run the session of
   * its seat. Undefined for a run without a seat, and for seats without room, in a claim, or with
   * possibly older work; the writer of these runs wakes their seats after the commit. No claim
   * serves the chosen seats until `deliver` or `drop`; other writers may hold the rest of their
   * room.
   */
  hold(seats: readonly (Seat | undefined)[]): HeldSeats {
    const held = new Map<Seat, number>();
    const claimants = seats.map((seat) => this.#reserve(seat, held));
    const startedAt = performance.now();
    return {
      claimants,
      deliver: (claimed) => this.#deliver(claimed, held, performance.now() - startedAt),
      drop: () => this.#release(held),
    };
  }

  async idle(): Promise<void> {
    while (this.#running || this.#underWay.size > 0) await (this.#running ?? Promise.all(this.#underWay));
  }

  /** Reserves room for one more run, and notes it in `held`; undefined: the seat must not claim. */
  #reserve(seat: Seat | undefined, held: Map<Seat, number>): SessionName | undefined {
    if (!seat || seat.mayHave.turn || seat.mayHave.run || this.#engaged.has(seat)) return undefined;
    const before = this.#reserved.get(seat) ?? 0;
    if (before >= seat.roomAhead()) return undefined;
    this.#reserved.set(seat, before + 1);
    held.set(seat, (held.get(seat) ?? 0) + 1);
    const { orgId, deviceId, epoch, sessionId } = seat;
    return { orgId, deviceId, epoch, sessionId };
  }

  #deliver(claimed: readonly runClaims.ClaimedRun[], held: ReadonlyMap<Seat, number>, tookMs: number): void {
    const byDevice = new Map([...held.keys()].map((seat) => [seat.deviceId, seat]));
    if (held.size > 0) this.#options.onBatch?.(held.size, tookMs);
    const unusable = this.#claims.hand(claimed, byDevice, tookMs);
    this.#release(held);
    if (unusable.length === 0) return;
    const failing = this.#claims
      .fail(unusable, byDevice)
      .catch((error: unknown) =>
        this.#options.log.error({ err: error }, "runs that nobody can execute were not failed"),
      )
      .finally(() => {
        this.#underWay.delete(failing);
        this.#goOn();
      });
    this.#underWay.add(failing);
  }

  #release(held: ReadonlyMap<Seat, number>): void {
    for (const [seat, count] of held) {
      const left = (this.#reserved.get(seat) ?? 0) - count;
      if (left > 0) this.#reserved.set(seat, left);
      else this.#reserved.delete(seat);
    }
    this.#goOn();
  }

  #goOn(): void {
    if (this.#woken.size > 0) this.#running ??= this.#drain();
  }

  async #drain(): Promise<void> {
    // Seats woken in the same turn of the event loop share the first statement.
    await Promise.resolve();
    while (true) {
      const seats = this.#nextSeats();
      // The remaining seats are held; their release starts the next check.
      if (seats.length === 0) break;
      for (const seat of seats) this.#engaged.add(seat);
      try {
        await this.#claims.serve(seats);
      } catch (error) {
        // The sweep finds the waiting work.
        const level = isUnavailable(error) ? "warn" : "error";
        this.#options.log[level]({ err: error, seats: seats.length }, "a claim failed");
      }
      for (const seat of seats) this.#engaged.delete(seat);
    }
    // In the same turn as the last check: a seat woken later starts a new drain.
    this.#running = undefined;
  }

  /** Takes woken seats that are in no claim and not held, and have room. */
  #nextSeats(): Seat[] {
    const seats: Seat[] = [];
    for (const seat of this.#woken) {
      if (this.#engaged.has(seat) || this.#reserved.has(seat)) continue;
      this.#woken.delete(seat);
      if (hasRoom(seat)) seats.push(seat);
      if (seats.length === seatsPerBatchMax) break;
    }
    return seats;
  }
}

/** Whether work may wait for the seat, and the seat has room. */
function hasRoom(seat: Seat): boolean {
  const isFree = seat.freeSlots() > 0;
  return (seat.mayHave.run && (isFree || seat.roomAhead() > 0)) || (seat.mayHave.turn && isFree);
}
