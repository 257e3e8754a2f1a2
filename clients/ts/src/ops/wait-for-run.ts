import { setTimeout as sleep } from "node:timers/promises";
import { type Run, type RunActivity, type RunOutput, RunStatus } from "../gen/pinion/v1/run_pb.js";
import type { Clients } from "./clients.ts";
import { isRetryable, pinionErrorOf } from "./errors.ts";

export interface WaitForRunOptions {
  signal?: AbortSignal;
  /** Called with the run at every change. */
  onRun?: (run: Run) => void;
  onOutput?: (output: RunOutput) => void;
  /** Called with the agent's activities, live; some may be missing, as for output. */
  onActivity?: (activity: RunActivity) => void;
}

/**
 * The server sends a message every 15 s; after three times this silence the stream counts as dead.
 */
const SILENCE_MS = 45_000;
const BACKOFF_BASE_MS = 250;
const BACKOFF_CAP_MS = 10_000;

/** True if a run has ended. */
export function isEnded(run: Pick<Run, "status">): boolean {
  switch (run.status) {
    case RunStatus.COMPLETED:
    case RunStatus.FAILED:
    case RunStatus.TIMEOUT:
    case RunStatus.CANCELLED:
    case RunStatus.SKIPPED:
      return true;
    case RunStatus.UNSPECIFIED:
    case RunStatus.PENDING:
    case RunStatus.CLAIMED:
    case RunStatus.RUNNING:
      return false;
  }
}

/**
 * Waits for the end of a run, over any number of streams, and returns the run. Throws a PinionError
 * without hope for a retry (not_found, unauthenticated …), or the signal's reason.
 */
export async function waitForRun(
  clients: Pick<Clients, "runs">,
  runId: string,
  options: WaitForRunOptions = {},
): Promise<Run> {
  for (let failures = 0; ; failures++) {
    options.signal?.throwIfAborted();
    const seen = await watchOnce(clients, runId, options);
    if ("run" in seen) return seen.run;
    if (seen.hasHeard) failures = 0;
    const ceiling = Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** Math.min(failures, 10));
    const delayMs = seen.retryAfterMs ?? Math.random() * ceiling;
    // An aborted sleep ends early; `throwIfAborted` in the loop then throws.
    await sleep(delayMs, undefined, options.signal === undefined ? {} : { signal: options.signal }).catch(
      () => {},
    );
  }
}

type Seen = { run: Run } | { hasHeard: boolean; retryAfterMs: number | undefined };

async function watchOnce(
  clients: Pick<Clients, "runs">,
  runId: string,
  options: WaitForRunOptions,
): Promise<Seen> {
  // One controller per stream: leaving the loop does not end the call.
  const controller = new AbortController();
  const onAbort = () => controller.abort();
  options.signal?.addEventListener("abort", onAbort, { once: true });
  const watchdog = setTimeout(onAbort, SILENCE_MS);
  let hasHeard = false;
  try {
    for await (const { update } of clients.runs.watchRun({ runId }, { signal: controller.signal })) {
      hasHeard = true;
      watchdog.refresh();
      if (update.case === "output") options.onOutput?.(update.value);
      if (update.case === "activity") options.onActivity?.(update.value);
      if (update.case !== "run") continue;
      options.onRun?.(update.value);
      if (isEnded(update.value)) return { run: update.value };
    }
    return { hasHeard, retryAfterMs: undefined };
  } catch (error) {
    options.signal?.throwIfAborted();
    const failure = pinionErrorOf(error);
    if (!isRetryable(failure) && !controller.signal.aborted) throw failure;
    return { hasHeard, retryAfterMs: failure.retryAfterMs };
  } finally {
    clearTimeout(watchdog);
    options.signal?.removeEventListener("abort", onAbort);
    controller.abort();
  }
}
