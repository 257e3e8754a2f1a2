/**
 * Coarse timers for many owners: one timer of Node for all. A session has two or three deadlines of
 * many seconds, each with a duration of its own, and Node keeps a list and a place in a queue for
 * each duration.
 */
import { AsyncLocalStorage } from "node:async_hooks";

export type WheelTimer = {
  /** Idempotent, also after the call. */
  cancel(): void;
};

const tickMsDefault = 250;
/**
 * Timers that are so many ticks away, or more, wait together, so that those of hours have no slot
 * each.
 */
const farTicks = 256;

type Callback = (of: unknown) => void;

class Entry implements WheelTimer {
  readonly callback: Callback;
  readonly of: unknown;
  readonly tick: number;
  slot: Set<Entry> | undefined;

  constructor(callback: Callback, of: unknown, tick: number) {
    this.callback = callback;
    this.of = of;
    this.tick = tick;
  }

  cancel(): void {
    this.slot?.delete(this);
    this.slot = undefined;
  }
}

/** Does not keep the process alive. An error of a callback is an uncaught error of the process. */
export class TimerWheel {
  readonly #tickMs: number;
  /** By tick, counted from the start of the process. */
  readonly #slots = new Map<number, Set<Entry>>();
  /** By the first of `farTicks` ticks; dealt out to `#slots` when it comes. */
  readonly #farSlots = new Map<number, Set<Entry>>();
  // A callback is no part of the request that happened to set it.
  readonly #outside = AsyncLocalStorage.snapshot();
  #timer: NodeJS.Timeout | undefined;
  #done = 0;

  constructor(tickMs = tickMsDefault) {
    this.#tickMs = tickMs;
  }

  /**
   * Calls back after `ms` milliseconds, never earlier, and up to two ticks later. With `of`, many
   * owners can share one function.
   */
  after(ms: number, callback: () => void): WheelTimer;
  after<Of>(ms: number, callback: (of: Of) => void, of: Of): WheelTimer;
  after(ms: number, callback: Callback, of?: unknown): WheelTimer {
    const now = performance.now();
    const tick = Math.floor((now + ms) / this.#tickMs) + 1;
    if (!this.#timer) {
      this.#done = Math.floor(now / this.#tickMs);
      this.#timer = this.#outside(() => setInterval(() => this.#turn(), this.#tickMs));
      this.#timer.unref();
    }
    const entry = new Entry(callback, of, tick);
    if (tick - now / this.#tickMs < farTicks) place(this.#slots, tick, entry);
    else place(this.#farSlots, tick - (tick % farTicks), entry);
    return entry;
  }

  /** Number of pending calls. */
  get size(): number {
    let size = 0;
    for (const slots of [this.#slots, this.#farSlots]) {
      for (const slot of slots.values()) size += slot.size;
    }
    return size;
  }

  /** Cancels all. */
  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#slots.clear();
    this.#farSlots.clear();
  }

  get #isEmpty(): boolean {
    return this.#slots.size + this.#farSlots.size === 0;
  }

  #turn(): void {
    const now = Math.floor(performance.now() / this.#tickMs);
    // The process may have stood still, so several ticks may have passed.
    while (this.#done < now && !this.#isEmpty) {
      const tick = ++this.#done;
      for (const entry of this.#farSlots.get(tick) ?? []) place(this.#slots, entry.tick, entry);
      this.#farSlots.delete(tick);
      const slot = this.#slots.get(tick);
      if (!slot) continue;
      this.#slots.delete(tick);
      for (const entry of slot) call(entry);
    }
    this.#done = now;
    if (this.#isEmpty) this.close();
  }
}

function place(slots: Map<number, Set<Entry>>, at: number, entry: Entry): void {
  const slot = slots.get(at) ?? new Set();
  slots.set(at, slot.add(entry));
  entry.slot = slot;
}

function call(entry: Entry): void {
  entry.slot = undefined;
  try {
    entry.callback(entry.of);
  } catch (error) {
    // The other callbacks of the tick are called all the same.
    process.nextTick(() => {
      throw error;
    });
  }
}
