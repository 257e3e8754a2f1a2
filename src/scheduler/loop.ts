import { Bell, sleep } from "../abort.ts";
import type { Logger } from "../log.ts";
import { isUnavailable } from "../store/pg/database.ts";

/** A scheduler service: a pass that is done again and again, and can be asked to be done now. */
export type Loop = {
  /** Asks for a pass now. Asking during a pass gives one more after it. */
  poke(): void;
  /** Stops after the pass that is under way. */
  stop(): Promise<void>;
};

/** Longest wait after passes that fail one after the other. */
const failureDelayMsMax = 5_000;

/**
 * Runs `pass` until stopped. A pass answers how many milliseconds may go by until the next one. A failing pass is
 * reported and repeated after a delay that doubles from 100 ms (R9: nothing that fails ends a loop).
 */
export function startLoop(options: {
  name: string;
  pass: (signal: AbortSignal) => Promise<number>;
  log: Logger;
  /** Told of passes that failed because the database was away. */
  onUnavailable?: () => void;
}): Loop {
  const bell = new Bell();
  const stopping = new AbortController();
  const { signal } = stopping;

  async function run(): Promise<void> {
    let failures = 0;
    while (!signal.aborted) {
      try {
        const waitMs = await options.pass(signal);
        failures = 0;
        await bell.wait(waitMs, signal);
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
