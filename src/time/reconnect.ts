import type { Logger } from "../telemetry/log.ts";
import { sleep } from "./abort.ts";

const backoffMsFirst = 100;
const backoffMsMax = 5_000;
/** Milliseconds. After a connection of this length the next wait is the shortest again. */
const goodConnectionMs = 10_000;

/**
 * Runs one connection after the other until the signal aborts, with a random wait (full jitter)
 * between two. `live` runs one connection, resolves with the reason of its end, and never rejects.
 */
export async function reconnect(options: {
  live: () => Promise<unknown>;
  signal: AbortSignal;
  log: Logger;
  /** The message for the log at each loss. */
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
