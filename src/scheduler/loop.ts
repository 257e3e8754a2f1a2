import { isUnavailable } from "../store/pg/failures.ts";
import type { Logger } from "../telemetry/log.ts";
import { Bell, sleep } from "../time/abort.ts";

/** A scheduler service: a pass that is repeated and can be requested. */
export type Loop = {
  /** Requests a pass now. A request during a pass causes one more pass. */
  poke(): void;
  /** Stops after the current pass. */
  stop(): Promise<void>;
};

/** Maximum milliseconds of delay after successive failures. */
const failureDelayMsMax = 5_000;

/**
 * Milliseconds between the moments at which idle loops wake, counted from the start of the process:
 * loops that look at one moment share a statement (store/pg/looks.ts).
 */
export const commonMs = 4_000;
/** Milliseconds that a pass may be later than it asked for, to reach a common moment. */
const slackMs = 5;

/**
 * Milliseconds to wait: a wait shorter than `commonMs` is exact, a longer one ends at the last
 * common moment before its end.
 */
export function untilNextPass(waitMs: number, now = performance.now()): number {
  if (waitMs < commonMs) return waitMs;
  return Math.max(0, Math.floor((now + waitMs + slackMs) / commonMs) * commonMs - now);
}

/**
 * Runs `pass` until stopped. A pass returns the milliseconds until the next pass. A failed pass is
 * logged and repeated after a delay that doubles from 100 ms (R9: no failure ends a loop).
 */
export function startLoop(options: {
  name: string;
  /** `wasPoked`: the pass was requested, and not only due. */
  pass: (signal: AbortSignal, wasPoked: boolean) => Promise<number>;
  /** Milliseconds until the first pass, for work that the start has just done; default 0. */
  firstAfterMs?: number;
  log: Logger;
  /** Reports passes that failed because the database was away. */
  onUnavailable?: () => void;
}): Loop {
  const bell = new Bell();
  const stopping = new AbortController();
  const { signal } = stopping;

  async function run(): Promise<void> {
    let failures = 0;
    const { firstAfterMs = 0 } = options;
    let wasPoked = firstAfterMs > 0 && (await bell.wait(untilNextPass(firstAfterMs), signal));
    while (!signal.aborted) {
      try {
        const waitMs = await options.pass(signal, wasPoked);
        failures = 0;
        wasPoked = await bell.wait(untilNextPass(waitMs), signal);
      } catch (error) {
        failures += 1;
        const isAway = isUnavailable(error);
        if (isAway) options.onUnavailable?.();
        options.log[isAway ? "warn" : "error"](
          { loop: options.name, failures, err: error },
          isAway ? "the database is away; will try again" : "a pass failed; will try again",
        );
        await sleep(Math.min(100 * 2 ** Math.min(failures, 10), failureDelayMsMax), signal);
      }
    }
  }

  const done = run();
  return {
    poke: () => bell.ring(),
    stop() {
      stopping.abort();
      return done;
    },
  };
}
