/** Waits that a signal ends. */

/** Node's timers above 2^31 - 1 ms fire at once. */
export const timerMsMax = 2 ** 31 - 1;

/**
 * Resolves after `ms` milliseconds, or at once when the signal aborts. Never rejects; the caller
 * checks the signal.
 */
export function sleep(ms: number, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, Math.min(ms, timerMsMax));
    signal.addEventListener("abort", done, { once: true });
  });
}

/**
 * Resolves with the promise's value, or with undefined after `ms` milliseconds. Rejects if the
 * promise rejects before.
 */
export async function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    timer = setTimeout(resolve, Math.min(ms, timerMsMax), undefined);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/**
 * A bell with one waiter. After a ring before the wait, the next wait returns at once. Many rings
 * before a wait count as one ring.
 */
export class Bell {
  #isRung = false;
  #wake: (() => void) | undefined;

  ring(): void {
    this.#isRung = true;
    this.#wake?.();
  }

  /**
   * Resolves with true when the bell rings, and with false after `ms` milliseconds or when the
   * signal aborts.
   */
  async wait(ms: number, signal: AbortSignal): Promise<boolean> {
    if (!this.#isRung && !signal.aborted) {
      await new Promise<void>((resolve) => {
        const done = () => {
          clearTimeout(timer);
          signal.removeEventListener("abort", done);
          this.#wake = undefined;
          resolve();
        };
        const timer = setTimeout(done, Math.min(ms, timerMsMax));
        signal.addEventListener("abort", done, { once: true });
        this.#wake = done;
      });
    }
    const wasRung = this.#isRung;
    this.#isRung = false;
    return wasRung;
  }
}
