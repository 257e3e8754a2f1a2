import { setTimeout as sleep } from "node:timers/promises";
import type { RunOutput } from "../gen/pinion/v1/run_pb.js";
import { type Turn, TurnStatus } from "../gen/pinion/v1/turn_pb.js";
import type { Clients } from "./clients.ts";
import { isRetryable, pinionErrorOf } from "./errors.ts";

export interface WaitForTurnOptions {
  signal?: AbortSignal;
  /** Called with the turn at every change, including the end. */
  onTurn?: (turn: Turn) => void;
  /**
   * Called with each piece once, in order, also over a reconnect; a gap in the sequence numbers
   * means dropped output.
   */
  onOutput?: (output: RunOutput) => void;
}

/**
 * The server sends a message every 15 s; after three times this silence the stream counts as dead.
 */
const SILENCE_MS = 45_000;
const BACKOFF_BASE_MS = 250;
const BACKOFF_CAP_MS = 10_000;

/** True if a turn has a reply or has ended without a reply. */
export function isTurnEnded(turn: Pick<Turn, "status">): boolean {
  switch (turn.status) {
    case TurnStatus.COMPLETED:
    case TurnStatus.FAILED:
    case TurnStatus.TIMEOUT:
    case TurnStatus.CANCELLED:
      return true;
    case TurnStatus.UNSPECIFIED:
    case TurnStatus.PENDING:
    case TurnStatus.CLAIMED:
    case TurnStatus.RUNNING:
      return false;
  }
}

/**
 * Waits for the end of a turn, over any number of streams, and returns the turn. Throws a
 * PinionError without hope for a retry (not_found, unauthenticated …), or the signal's reason.
 */
export async function waitForTurn(
  clients: Pick<Clients, "turns">,
  turnId: string,
  options: WaitForTurnOptions = {},
): Promise<Turn> {
  const progress = { sequence: 0n };
  for (let failures = 0; ; failures++) {
    options.signal?.throwIfAborted();
    const seen = await watchOnce(clients, turnId, progress, options);
    if ("turn" in seen) return seen.turn;
    if (seen.hasHeard) failures = 0;
    const ceiling = Math.min(BACKOFF_CAP_MS, BACKOFF_BASE_MS * 2 ** Math.min(failures, 10));
    const delayMs = seen.retryAfterMs ?? Math.random() * ceiling;
    // An aborted sleep ends early; `throwIfAborted` in the loop then throws.
    await sleep(delayMs, undefined, options.signal === undefined ? {} : { signal: options.signal }).catch(
      () => {},
    );
  }
}

type Seen = { turn: Turn } | { hasHeard: boolean; retryAfterMs: number | undefined };

async function watchOnce(
  clients: Pick<Clients, "turns">,
  turnId: string,
  /** Last sequence number read, over all streams. */
  progress: { sequence: bigint },
  options: WaitForTurnOptions,
): Promise<Seen> {
  // One controller per stream: leaving the loop does not end the call.
  const controller = new AbortController();
  const onAbort = () => controller.abort();
  options.signal?.addEventListener("abort", onAbort, { once: true });
  const watchdog = setTimeout(onAbort, SILENCE_MS);
  let hasHeard = false;
  try {
    const request = { turnId, afterSequence: progress.sequence };
    for await (const { update } of clients.turns.watchTurn(request, { signal: controller.signal })) {
      hasHeard = true;
      watchdog.refresh();
      if (update.case === "turn") options.onTurn?.(update.value);
      if (update.case === "output" && update.value.sequence > progress.sequence) {
        progress.sequence = update.value.sequence;
        options.onOutput?.(update.value);
      }
      if (update.case !== "ended") continue;
      options.onTurn?.(update.value);
      return { turn: update.value };
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
