/**
 * The client's own timers and bounds, in ms unless the name says otherwise. The server sets the
 * others.
 */
export interface Timing {
  /** From the dial to a connected channel: TCP, TLS and HTTP/2 settings. */
  dialDeadlineMs: number;
  /** Deadline from `hello` to `welcome`. */
  welcomeDeadlineMs: number;
  /** Maximum time for reading acknowledgements from a drained stream. */
  drainLingerMs: number;
  /** First ceiling of the backoff. */
  backoffBaseMs: number;
  /** Last ceiling of the backoff. */
  backoffCapMs: number;
  /** Minimum length of a session for resetting the backoff. */
  backoffResetMs: number;
  /** Maximum of refusals in a row (token, installation, hello); the connection then gives up. */
  refusalsMax: number;
  /**
   * Deadline of an acknowledgement on a live stream; the completion is then sent again. Doubles up
   * to `ackDeadlineCapMs`.
   */
  ackDeadlineMs: number;
  ackDeadlineCapMs: number;
  /**
   * Time without a stream after which completions also go by the unary CompleteRun; also the
   * interval of repeats.
   */
  unaryAfterMs: number;
  /** Deadline of a unary CompleteRun. */
  unaryDeadlineMs: number;
  /**
   * Minimum age of an acknowledged result for being safe in a failover by the server's word; far
   * above the time in which a server sees a promotion.
   */
  safeAfterMs: number;
  /** Interval between comparisons of the wall clock with the expected time. */
  wakeCheckMs: number;
  /** A check late by more than this bound means the machine slept. */
  wakeJumpMs: number;
}

export const defaultTiming: Timing = {
  // Equal to the server's deadline for a hello.
  dialDeadlineMs: 10_000,
  welcomeDeadlineMs: 10_000,
  drainLingerMs: 2_000,
  backoffBaseMs: 500,
  backoffCapMs: 30_000,
  backoffResetMs: 10_000,
  refusalsMax: 3,
  ackDeadlineMs: 15_000,
  ackDeadlineCapMs: 120_000,
  unaryAfterMs: 60_000,
  unaryDeadlineMs: 15_000,
  safeAfterMs: 600_000,
  wakeCheckMs: 5_000,
  wakeJumpMs: 15_000,
};

/** The timers for a `welcome` without timers: the defaults of docs/configuration.md. */
export const fallbackHeartbeatMs = 20_000;
export const fallbackTtlMs = 60_000;

/** Limits of a session in bytes; before a `welcome` the protocol's field rules apply. */
export interface SessionLimits {
  messageBytesMax: number;
  completionOutputBytesMax: number;
  outputChunkBytesMax: number;
}

export const defaultLimits: SessionLimits = {
  messageBytesMax: 4 * 1024 * 1024,
  completionOutputBytesMax: 1024 * 1024,
  outputChunkBytesMax: 32 * 1024,
};

/** The wall clock in milliseconds with fractions, for latencies below a millisecond. */
export function nowMs(): number {
  return performance.timeOrigin + performance.now() + wallOffset();
}

/**
 * Node reads `timeOrigin` once at the start; the offset follows later changes of the clock, to
 * within 2 ms.
 */
let offsetMs = 0;
function wallOffset(): number {
  const drift = Date.now() - (performance.timeOrigin + performance.now() + offsetMs);
  if (Math.abs(drift) > 2) offsetMs += drift;
  return offsetMs;
}
