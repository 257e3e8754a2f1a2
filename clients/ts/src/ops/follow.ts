import { setTimeout as sleep } from "node:timers/promises";
import { isRetryable, pinionErrorOf } from "./errors.ts";

/**
 * The server sends a message every 15 s; after three times this silence the stream counts as dead.
 */
const SILENCE_MS = 45_000;
const BACKOFF_BASE_MS = 250;
const BACKOFF_CAP_MS = 10_000;

export interface FollowOptions<Update, Ended> {
  signal: AbortSignal | undefined;
  /** Opens a stream of updates, which ends with the signal. */
  open: (signal: AbortSignal) => AsyncIterable<Update>;
  /** Takes an update; returns the ended work with its last update. */
  onUpdate: (update: Update) => Ended | undefined;
}

/**
 * Follows work to its end, over any number of streams, and returns the ended work. Throws a
 * PinionError without hope for a retry (not_found, unauthenticated …), or the signal's reason.
 */
export async function follow<Update, Ended extends object>(
  options: FollowOptions<Update, Ended>,
): Promise<Ended> {
  const { signal } = options;
  for (let failures = 0; ; failures++) {
    signal?.throwIfAborted();
    const seen = await followOnce(options);
    if ("ended" in seen) return seen.ended;
    if (seen.hasHeard) failures = 0;
    const ceiling = Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** Math.min(failures, 10));
    const delayMs = seen.retryAfterMs ?? Math.random() * ceiling;
    // An aborted sleep ends early; `throwIfAborted` in the loop then throws.
    await sleep(delayMs, undefined, signal === undefined ? {} : { signal }).catch(() => {});
  }
}

type Seen<Ended> = { ended: Ended } | { hasHeard: boolean; retryAfterMs: number | undefined };

async function followOnce<Update, Ended>(options: FollowOptions<Update, Ended>): Promise<Seen<Ended>> {
  const { signal } = options;
  // One controller per stream: leaving the loop does not end the call.
  const controller = new AbortController();
  const onAbort = () => controller.abort();
  signal?.addEventListener("abort", onAbort, { once: true });
  const watchdog = setTimeout(onAbort, SILENCE_MS);
  let hasHeard = false;
  try {
    for await (const update of options.open(controller.signal)) {
      hasHeard = true;
      watchdog.refresh();
      const ended = options.onUpdate(update);
      if (ended !== undefined) return { ended };
    }
    return { hasHeard, retryAfterMs: undefined };
  } catch (error) {
    signal?.throwIfAborted();
    const failure = pinionErrorOf(error);
    if (!isRetryable(failure) && !controller.signal.aborted) throw failure;
    return { hasHeard, retryAfterMs: failure.retryAfterMs };
  } finally {
    clearTimeout(watchdog);
    signal?.removeEventListener("abort", onAbort);
    controller.abort();
  }
}
