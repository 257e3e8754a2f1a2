import { isUnavailable } from "../store/pg/failures.ts";
import type * as attempts from "../store/work/attempts.ts";
import type { SessionName } from "../store/work/presence.ts";
import { Claims, type ClaimsOptions, type Seat } from "./claims.ts";

/**
 * Claims work for seats that were woken, in batches: one statement serves all seats woken during
 * the previous statement.
 *
 *   idle ──wake──▶ woken ──room, and work may wait──▶ engaged ──claim──▶ delivered ──▶ idle
 *                    ▲                                   │
 *                    └─────── more than its share ───────┘
 */
export type Dispatcher = {
  /** Reports that a seat may get work: a slot freed, a session opened, or a `mayHave…` set. */
  wake(seat: Seat): void;
  /**
   * Chooses the sessions that may claim runs while they are recorded: for each run the session of
   * its seat. Undefined for a run without a seat, and for seats without room, in a claim, or with
   * possibly older work; the writer of these runs wakes their seats after the commit. No claim
   * serves the chosen seats until `deliver` or `drop`; other writers may hold the rest of their
   * room.
   */
  hold(seats: readonly (Seat | undefined)[]): HeldSeats;
  idle(): Promise<void>;
};

/** {@link Dispatcher.hold} for the sessions of devices. */
export type Hold = (devices: readonly { orgId: string; deviceId: string | null }[]) => HeldSeats;

/**
 * Seats reserved for a transaction that is not committed yet. The caller calls `deliver` or `drop`,
 * once.
 */
export type HeldSeats = {
  claimants: readonly (SessionName | undefined)[];
  /** After the commit: delivers the claimed runs to the seats. */
  deliver(claimed: readonly attempts.ClaimedRun[]): void;
  /** After a rollback: releases the seats. */
  drop(): void;
};

/** Seats per claim statement. */
const seatsPerBatchMax = 1_000;

export function createDispatcher(options: ClaimsOptions): Dispatcher {
  const { log } = options;
  const woken = new Set<Seat>();
  /** Seats in running claims: all their room is reserved. */
  const engaged = new Set<Seat>();
  /** Number of runs that open transactions may claim for a seat as they record them. */
  const reserved = new Map<Seat, number>();
  /** Work that runs concurrently with the claims. */
  const underWay = new Set<Promise<void>>();
  let running: Promise<void> | undefined;
  const claims = new Claims(options, (seat) => woken.add(seat));

  function release(held: ReadonlyMap<Seat, number>): void {
    for (const [seat, count] of held) {
      const left = reserved.get(seat)! - count;
      if (left > 0) reserved.set(seat, left);
      else reserved.delete(seat);
    }
    if (woken.size > 0) running ??= drain();
  }

  /** Takes woken seats that are in no claim and not held, and have room. */
  function nextSeats(): Seat[] {
    const seats: Seat[] = [];
    for (const seat of woken) {
      if (engaged.has(seat) || reserved.has(seat)) continue;
      woken.delete(seat);
      if (hasRoom(seat)) seats.push(seat);
      if (seats.length === seatsPerBatchMax) break;
    }
    return seats;
  }

  async function drain(): Promise<void> {
    // Seats woken in the same turn of the event loop share the first statement.
    await Promise.resolve();
    while (true) {
      const seats = nextSeats();
      // The remaining seats are held; their release starts the next check.
      if (seats.length === 0) break;
      for (const seat of seats) engaged.add(seat);
      try {
        await claims.serve(seats);
      } catch (error) {
        // The sweep finds the waiting work.
        log[isUnavailable(error) ? "warn" : "error"]({ err: error, seats: seats.length }, "a claim failed");
      }
      for (const seat of seats) engaged.delete(seat);
    }
    // In the same turn as the last check: a seat woken later starts a new drain.
    running = undefined;
  }

  function hold(seats: readonly (Seat | undefined)[]): HeldSeats {
    const held = new Map<Seat, number>();
    const claimants = seats.map((seat) => {
      if (!seat || seat.mayHaveTurns || seat.mayHaveRuns || engaged.has(seat)) return undefined;
      const before = reserved.get(seat) ?? 0;
      if (before >= seat.roomAhead()) return undefined;
      reserved.set(seat, before + 1);
      held.set(seat, (held.get(seat) ?? 0) + 1);
      const { orgId, deviceId, epoch, sessionId } = seat;
      return { orgId, deviceId, epoch, sessionId };
    });
    const startedAt = performance.now();
    return {
      claimants,
      deliver(claimed) {
        const byDevice = new Map([...held.keys()].map((seat) => [seat.deviceId, seat]));
        const tookMs = performance.now() - startedAt;
        if (held.size > 0) options.onBatch?.(held.size, tookMs);
        const unusable = claims.hand(claimed, byDevice, tookMs);
        release(held);
        if (unusable.length === 0) return;
        const failing = claims
          .fail(unusable, byDevice)
          .catch((error: unknown) =>
            log.error({ err: error }, "runs that nobody can execute were not failed"),
          )
          .finally(() => {
            underWay.delete(failing);
            release(new Map());
          });
        underWay.add(failing);
      },
      drop() {
        release(held);
      },
    };
  }

  return {
    wake(seat) {
      woken.add(seat);
      running ??= drain();
    },
    hold,
    async idle() {
      while (running || underWay.size > 0) await (running ?? Promise.all(underWay));
    },
  };
}

/** Whether work may wait for the seat, and the seat has room. */
function hasRoom(seat: Seat): boolean {
  const isFree = seat.freeSlots() > 0;
  return (seat.mayHaveRuns && (isFree || seat.roomAhead() > 0)) || (seat.mayHaveTurns && isFree);
}
