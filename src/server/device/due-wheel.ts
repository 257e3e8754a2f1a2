import type { DatabaseClock } from "../../database-clock.ts";
import type { Logger } from "../../log.ts";

/**
 * A timer for all due times of the replica, by the database's clock: a heap of times, and one timer
 * for the earliest. A callback runs at its time, and never more than `earlyMsMax` before.
 */
export type DueWheel = {
  /**
   * Calls back at the time `at` (milliseconds since 1970); returns a function that removes the
   * callback.
   */
  at(at: number, callback: () => void): () => void;
  /** Number of pending callbacks. */
  readonly size: number;
  close(): void;
};

/**
 * Milliseconds that a callback may be early. Node's timers fire up to a millisecond late; half of
 * the delay is compensated. The documented tolerance is 1 ms.
 */
export const earlyMsMax = 0.5;
/** Milliseconds. A clock estimate older than this is refreshed by a statement before use. */
const sampleAgeMsMax = 5_000;
/**
 * Callbacks per turn of the event loop: few in the first turn, twice as many in each further turn of
 * a crowd. Writes leave at the end of a turn, so the first of many do not wait for the last; and
 * between two turns devices answer, so with small turns the last of many would wait until the
 * answers of all others have been handled.
 */
const callsInFirstTurn = 8;
const callsPerTurnMax = 256;
/** Maximum milliseconds between reads of the clock, however far the next due time is. */
const lookMsMax = 10_000;

type Moment = { at: number; callback: (() => void) | undefined };

/** `ask` has a statement tell the clock the time. */
export function createDueWheel(options: {
  clock: DatabaseClock;
  ask: () => Promise<unknown>;
  log: Logger;
}): DueWheel {
  const { clock, log } = options;
  const heap: Moment[] = [];
  let live = 0;
  let timer: NodeJS.Timeout | undefined;
  /** The time the timer waits for. */
  let armedAt = Number.POSITIVE_INFINITY;
  let isAsking = false;
  let isClosed = false;
  const stopListening = clock.onJump((jumpedByMs) => {
    log.warn(
      { jumpedByMs: Math.round(jumpedByMs) },
      "the database's clock was set; what is due is planned again",
    );
    arm();
  });

  function arm(): void {
    while (heap.length > 0 && !heap[0]!.callback) pop(heap);
    clearTimeout(timer);
    armedAt = heap[0]?.at ?? Number.POSITIVE_INFINITY;
    if (heap.length === 0 || isClosed) return;
    const waitMs = armedAt - earlyMsMax - clock.now();
    timer = setTimeout(() => fire(), Math.max(0, Math.min(Math.ceil(waitMs), lookMsMax)));
    if (waitMs < sampleAgeMsMax && clock.ageMs > sampleAgeMsMax) ask();
  }

  function ask(): void {
    if (isAsking) return;
    isAsking = true;
    options
      .ask()
      // The current estimate stays.
      .catch((error: unknown) => log.debug({ err: error }, "the database's clock could not be read"))
      .finally(() => {
        isAsking = false;
        arm();
      });
  }

  function fire(callsMax = callsInFirstTurn): void {
    if (isClosed) return;
    const now = clock.now() + earlyMsMax;
    for (let called = 0; heap.length > 0 && (heap[0]!.at <= now || !heap[0]!.callback); called++) {
      if (called === callsMax) {
        setImmediate(fire, Math.min(callsMax * 2, callsPerTurnMax));
        return;
      }
      const { callback } = pop(heap)!;
      if (!callback) continue;
      live--;
      try {
        callback();
      } catch (error) {
        log.error({ err: error }, "what was due could not be done");
      }
    }
    arm();
  }

  return {
    get size() {
      return live;
    },
    at(at, callback) {
      const moment: Moment = { at, callback };
      push(heap, moment);
      live++;
      if (at < armedAt) arm();
      return () => {
        if (!moment.callback) return;
        moment.callback = undefined;
        live--;
      };
    },
    close() {
      isClosed = true;
      clearTimeout(timer);
      stopListening();
      heap.length = 0;
    },
  };
}

function push(heap: Moment[], moment: Moment): void {
  let index = heap.push(moment) - 1;
  while (index > 0) {
    const parent = (index - 1) >> 1;
    if (heap[parent]!.at <= moment.at) break;
    heap[index] = heap[parent]!;
    index = parent;
  }
  heap[index] = moment;
}

function pop(heap: Moment[]): Moment | undefined {
  const first = heap[0];
  const last = heap.pop();
  if (heap.length === 0 || !last) return first;
  let index = 0;
  for (;;) {
    let child = 2 * index + 1;
    if (child >= heap.length) break;
    if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child++;
    if (heap[child]!.at >= last.at) break;
    heap[index] = heap[child]!;
    index = child;
  }
  heap[index] = last;
  return first;
}
