/**
 * Second looks for waiting work. A claim skips locked rows and never waits
 * (store/work/runs/run-claims.ts), and the transaction that held such a row may end without an
 * announcement: refused, rolled back, or with a change that causes no ring. So after a claim that
 * found less work than its seat has room for, a look without locks follows. Only if the look finds
 * waiting work, the seat claims again.
 *
 *   less than the room ──100 ms──▶ look ─▶ nothing waits
 *                         ▲          └──▶ claim ──▶ less again ─┐
 *                         └── twice as long, 6.4 s at most ─────┘   then the sweep
 */
import type { Db } from "../store/pg/database.ts";
import type { WorkKind } from "../store/work/attempts/active.ts";
import * as attempts from "../store/work/attempts/attempts.ts";
import * as turnAttempts from "../store/work/turns/turn-attempts.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Seat } from "./seat.ts";

/** Milliseconds from a claim to the first look for a seat. */
const firstMs = 100;
/**
 * Milliseconds from the claim to the last look for a seat; afterwards the sweep finds waiting work.
 */
const lastMs = 6_400;
/** Milliseconds after which looks for a seat begin anew with the first one. */
const forgottenMs = 15_000;
/** Maximum seats of a look. */
const seatsPerLookMax = 1_000;
/** Maximum seats that wait for a look; the sweep finds the work of further seats. */
const waitingMax = 20_000;

/** The looks for a seat since a look found nothing. */
type Looks = { afterMs: number; dueAt: number; isWaiting: boolean };

const findWaited = {
  run: attempts.findWaited,
  turn: turnAttempts.findWaited,
} as const satisfies Record<WorkKind, unknown>;

type Options = {
  db: Db;
  log: Logger;
  /** Makes a seat claim: work waits for the seat. */
  wake: (seat: Seat) => void;
};

export class SecondLooks {
  readonly #options: Options;
  readonly #looks: Record<WorkKind, WeakMap<Seat, Looks>> = { run: new WeakMap(), turn: new WeakMap() };
  readonly #waiting: Record<WorkKind, Map<Seat, Looks>> = { run: new Map(), turn: new Map() };
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> | undefined;
  #isClosed = false;

  constructor(options: Options) {
    this.#options = options;
  }

  /** Reports that a claim found less than the seat has room for. */
  passed(seat: Seat, kind: WorkKind): void {
    const now = performance.now();
    let looks = this.#looks[kind].get(seat);
    if (!looks || now - looks.dueAt > forgottenMs) looks = { afterMs: firstMs, dueAt: 0, isWaiting: false };
    const waiting = this.#waiting[kind];
    if (looks.isWaiting || looks.afterMs > lastMs || waiting.size >= waitingMax || this.#isClosed) return;
    looks.dueAt = now + looks.afterMs;
    looks.afterMs *= 2;
    looks.isWaiting = true;
    this.#looks[kind].set(seat, looks);
    waiting.set(seat, looks);
    this.#timer ??= this.#arm();
  }

  /** Takes no more, and waits for the look that is under way. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#looking;
  }

  #arm(): NodeJS.Timeout {
    return setTimeout(() => {
      this.#looking = this.#lookOnce()
        .catch((error: unknown) => {
          this.#options.log.debug({ err: error }, "a second look failed; the sweep makes it good");
        })
        .finally(() => {
          const isLeft = this.#waiting.run.size + this.#waiting.turn.size > 0;
          this.#timer = isLeft && !this.#isClosed ? this.#arm() : undefined;
        });
    }, firstMs);
  }

  async #lookOnce(): Promise<void> {
    for (const kind of ["turn", "run"] as const) {
      const seats = this.#takeDue(kind);
      for (let at = 0; at < seats.length; at += seatsPerLookMax) {
        await this.#lookFor(kind, seats.slice(at, at + seatsPerLookMax));
      }
    }
  }

  /** Takes the seats whose moment has come. */
  #takeDue(kind: WorkKind): Seat[] {
    const now = performance.now();
    const due: Seat[] = [];
    for (const [seat, looks] of this.#waiting[kind]) {
      if (looks.dueAt > now) continue;
      this.#waiting[kind].delete(seat);
      looks.isWaiting = false;
      due.push(seat);
    }
    return due;
  }

  async #lookFor(kind: WorkKind, seats: readonly Seat[]): Promise<void> {
    const asked = seats.map(({ orgId, deviceId, kinds }) => ({ orgId, deviceId, isWorker: kinds !== null }));
    const waited = await findWaited[kind](this.#options.db, asked);
    for (const seat of seats) {
      if (!waited.has(seat.deviceId)) {
        this.#looks[kind].delete(seat);
        continue;
      }
      seat.mayHave[kind] = true;
      this.#options.wake(seat);
    }
  }
}
