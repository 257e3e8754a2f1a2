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

export type TimerWheel = {
  /** Calls back after `ms` milliseconds, never earlier, and up to two ticks later. */
  after(ms: number, callback: () => void): WheelTimer;
  /** Number of pending calls. */
  readonly size: number;
  /** Cancels all. */
  close(): void;
};

const tickMsDefault = 250;

class Entry implements WheelTimer {
  readonly callback: () => void;
  slot: Set<Entry> | undefined;

  constructor(callback: () => void, slot: Set<Entry>) {
    this.callback = callback;
    this.slot = slot;
  }

  cancel(): void {
    this.slot?.delete(this);
    this.slot = undefined;
  }
}

/** Does not keep the process alive. An error of a callback is an uncaught error of the process. */
export function createTimerWheel(tickMs = tickMsDefault): TimerWheel {
  /** By tick, counted from the start of the process. */
  const slots = new Map<number, Set<Entry>>();
  let timer: NodeJS.Timeout | undefined;
  let done = 0;
  // A callback is no part of the request that happened to set it.
  const outside = AsyncLocalStorage.snapshot();
  const tickOf = (ms: number) => Math.floor(ms / tickMs);

  function start(): void {
    done = tickOf(performance.now());
    timer = outside(() => setInterval(turn, tickMs));
    timer.unref();
  }

  function turn(): void {
    const now = tickOf(performance.now());
    // The process may have stood still, so several ticks may have passed.
    while (done < now && slots.size > 0) {
      const slot = slots.get(++done);
      if (!slot) continue;
      slots.delete(done);
      for (const entry of slot) call(entry);
    }
    done = now;
    if (slots.size > 0) return;
    clearInterval(timer);
    timer = undefined;
  }

  function call(entry: Entry): void {
    entry.slot = undefined;
    try {
      entry.callback();
    } catch (error) {
      // The other callbacks of the tick are called all the same.
      process.nextTick(() => {
        throw error;
      });
    }
  }

  return {
    after(ms, callback) {
      const tick = tickOf(performance.now() + ms) + 1;
      if (!timer) start();
      const slot = slots.get(tick) ?? new Set();
      slots.set(tick, slot);
      const entry = new Entry(callback, slot);
      slot.add(entry);
      return entry;
    },
    get size() {
      let size = 0;
      for (const slot of slots.values()) size += slot.size;
      return size;
    },
    close() {
      clearInterval(timer);
      timer = undefined;
      slots.clear();
    },
  };
}
