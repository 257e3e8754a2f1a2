import type { Logger } from "../../../telemetry/log.ts";
import type { DatabaseClock } from "../../../time/database-clock.ts";
import { type Held, Rush } from "./rush.ts";

/**
 * Milliseconds that a callback may be early. Node's timers fire up to a millisecond late; half of
 * the delay is compensated. The documented tolerance is 1 ms.
 */
export const earlyMsMax = 0.5;
/** Milliseconds. A clock estimate older than this is refreshed by a statement before use. */
const sampleAgeMsMax = 5_000;
/**
 * Callbacks per turn of the event loop: few in the first turn, twice as many in each further turn
 * of a rush. Writes leave at the end of a turn, so the first of many do not wait for the last.
 */
const callsInFirstTurn = 2;
const callsPerTurnMax = 256;
/**
 * Milliseconds of callbacks in a turn: a device with many free slots has as many frames in one
 * callback.
 */
const callsMsPerTurn = 5;
/** Maximum milliseconds between reads of the clock, however far the next due time is. */
const lookMsMax = 10_000;

/**
 * A timer for all due times of the replica, by the database's clock: a heap of times, and one timer
 * for the earliest. A callback runs at its time, and never more than `earlyMsMax` before.
 *
 *   at ──▶ heap ──its time──▶ called, with the others of the moment, turn by turn (Rush)
 *            └──removed, or the wheel is closed──▶ not called
 */
export class DueWheel {
  readonly #clock: DatabaseClock;
  readonly #ask: () => Promise<unknown>;
  readonly #log: Logger;
  readonly #moments = new Moments();
  readonly #rush = new Rush();
  readonly #stopListening: () => void;
  #size = 0;
  #timer: NodeJS.Timeout | undefined;
  /** The time the timer waits for. */
  #armedAt = Number.POSITIVE_INFINITY;
  #isAsking = false;
  #isClosed = false;

  /** `ask` has a statement tell the clock the time. */
  constructor(options: { clock: DatabaseClock; ask: () => Promise<unknown>; log: Logger }) {
    this.#clock = options.clock;
    this.#ask = options.ask;
    this.#log = options.log;
    this.#stopListening = this.#clock.onJump((jumpedByMs) => {
      this.#log.warn(
        { jumpedByMs: Math.round(jumpedByMs) },
        "the database's clock was set; what is due is planned again",
      );
      this.#arm();
    });
  }

  /** Number of pending callbacks. */
  get size(): number {
    return this.#size;
  }

  /**
   * Calls back at the time `at` (milliseconds since 1970); returns a function that removes the
   * callback.
   */
  at(at: number, callback: () => void): () => void {
    const moment = { at, callback: callback as (() => void) | undefined };
    this.#moments.add(moment);
    this.#size++;
    if (at < this.#armedAt) this.#arm();
    return () => {
      if (!moment.callback) return;
      moment.callback = undefined;
      this.#size--;
    };
  }

  /**
   * False: a stream's messages may be handled now. True: the stream goes on in a later turn
   * (rush.ts).
   */
  holds(stream: Held): boolean {
    return this.#rush.holds(stream);
  }

  /**
   * As {@link holds}, between two messages of one stream: true only if the turn's time is used up.
   */
  interrupts(stream: Held): boolean {
    return this.#rush.interrupts(stream);
  }

  close(): void {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#stopListening();
    this.#moments.clear();
    this.#rush.end();
  }

  #arm(): void {
    for (let first = this.#moments.first(); first && !first.callback; first = this.#moments.first()) {
      this.#moments.take();
    }
    clearTimeout(this.#timer);
    const first = this.#moments.first();
    this.#armedAt = first?.at ?? Number.POSITIVE_INFINITY;
    if (!first || this.#isClosed) return;
    const waitMs = first.at - earlyMsMax - this.#clock.now();
    this.#timer = setTimeout(
      () => this.#fire(callsInFirstTurn),
      Math.max(0, Math.min(Math.ceil(waitMs), lookMsMax)),
    );
    if (waitMs < sampleAgeMsMax && this.#clock.ageMs > sampleAgeMsMax) this.#askTheTime();
  }

  #askTheTime(): void {
    if (this.#isAsking) return;
    this.#isAsking = true;
    this.#ask()
      // The current estimate stays.
      .catch((error: unknown) => this.#log.debug({ err: error }, "the database's clock could not be read"))
      .finally(() => {
        this.#isAsking = false;
        this.#arm();
      });
  }

  #fire(callsMax: number): void {
    if (this.#isClosed) return;
    const until = this.#clock.now() + earlyMsMax;
    const beganAt = performance.now();
    for (let called = 0; called < callsMax; ) {
      if (called > 0 && performance.now() - beganAt > callsMsPerTurn) break;
      const first = this.#moments.first();
      if (!first || (first.callback && first.at > until)) {
        this.#rush.end();
        this.#arm();
        return;
      }
      this.#moments.take();
      const { callback } = first;
      if (!callback) continue;
      first.callback = undefined;
      this.#call(callback);
      called++;
    }
    this.#rush.goesOn();
    setImmediate(() => this.#fire(Math.min(callsMax * 2, callsPerTurnMax)));
  }

  #call(callback: () => void): void {
    this.#size--;
    try {
      callback();
    } catch (error) {
      this.#log.error({ err: error }, "what was due could not be done");
    }
  }
}

/**
 * A callback at a time, in milliseconds since 1970. Without a callback, it was called or removed.
 */
type Moment = { readonly at: number; callback: (() => void) | undefined };

/** Moments, the earliest first: a binary heap. */
class Moments {
  readonly #heap: Moment[] = [];

  first(): Moment | undefined {
    return this.#heap[0];
  }

  add(moment: Moment): void {
    const heap = this.#heap;
    let index = heap.push(moment) - 1;
    while (index > 0) {
      const parent = (index - 1) >> 1;
      const above = heap[parent] as Moment;
      if (above.at <= moment.at) break;
      heap[index] = above;
      index = parent;
    }
    heap[index] = moment;
  }

  /** Takes the earliest out. */
  take(): Moment | undefined {
    const heap = this.#heap;
    const first = heap[0];
    const last = heap.pop();
    if (heap.length === 0 || !last) return first;
    let index = 0;
    for (;;) {
      let child = 2 * index + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && this.#at(child + 1) < this.#at(child)) child++;
      if (this.#at(child) >= last.at) break;
      heap[index] = heap[child] as Moment;
      index = child;
    }
    heap[index] = last;
    return first;
  }

  clear(): void {
    this.#heap.length = 0;
  }

  #at(index: number): number {
    return (this.#heap[index] as Moment).at;
  }
}
