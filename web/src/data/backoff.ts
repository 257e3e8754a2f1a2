/** Increasing delays between retries. */

const firstMs = 400;
const mostMs = 15_000;

/**
 * Delay in ms with full jitter over a doubling range, so the pages of an office do not return
 * together.
 */
export function backoffMs(failures: number): number {
  return firstMs + Math.random() * Math.min(mostMs, firstMs * 2 ** failures);
}

/** Resolves after `ms`, when the network is back, or when the signal aborts. Never rejects. */
export function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      removeEventListener("online", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    addEventListener("online", done);
    signal.addEventListener("abort", done);
    if (signal.aborted) done();
  });
}

/**
 * A signal aborted with `outer`, or after `ms` without a call of `heard`. A connection can break
 * unnoticed; the server sends a message every 15 s.
 */
export function watchdog(
  outer: AbortSignal,
  ms: number,
): { signal: AbortSignal; heard: () => void; stop: () => void } {
  const silent = new AbortController();
  let timer = setTimeout(() => silent.abort(), ms);
  return {
    signal: AbortSignal.any([outer, silent.signal]),
    heard() {
      clearTimeout(timer);
      timer = setTimeout(() => silent.abort(), ms);
    },
    stop: () => clearTimeout(timer),
  };
}
