import { sleep } from "./abort.ts";
import type { Logger } from "./log.ts";

const backoffMsFirst = 100;
const backoffMsMax = 5_000;
/** A connection that held this long was a good one, and the next loss starts with a short wait again. */
const goodConnectionMs = 10_000;

/**
 * Lives one connection after the other until the signal aborts, with full jitter between them. `live` is one
 * connection's life: it resolves with what ended it, and does not reject.
 */
export async function reconnect(options: {
  live: () => Promise<unknown>;
  signal: AbortSignal;
  log: Logger;
  /** What is said of every loss. */
  lost: string;
}): Promise<void> {
  for (let failures = 0; !options.signal.aborted; failures++) {
    const startedAt = performance.now();
    const error = await options.live();
    if (options.signal.aborted) break;
    if (performance.now() - startedAt >= goodConnectionMs) failures = 0;
    const waitMs = Math.random() * Math.min(backoffMsMax, backoffMsFirst * 2 ** Math.min(failures, 10));
    options.log.warn({ err: error, waitMs: Math.round(waitMs) }, options.lost);
    await sleep(waitMs, options.signal);
  }
}
