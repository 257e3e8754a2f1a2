import { setTimeout as delay } from "node:timers/promises";

/** Far above the time of the slowest part on a busy machine. */
const closeMsMax = 60_000;

/**
 * The end of a part of the rig, bounded: a part that does not end is named, and the others are
 * closed all the same.
 */
export function closing(part: string, close: () => unknown): () => Promise<void> {
  return async () => {
    const over = new AbortController();
    const late = delay(closeMsMax, undefined, { signal: over.signal }).then(
      () => {
        throw new Error(`the rig: ${part} did not close within ${closeMsMax} ms`);
      },
      () => {},
    );
    await Promise.race([Promise.resolve().then(close), late]).finally(() => over.abort());
  };
}
