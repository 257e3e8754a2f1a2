/** The client's own timers and bounds, in milliseconds unless the name says otherwise. The server dictates the others. */
export interface Timing {
  /** From the dial to a channel that is up: TCP, TLS and HTTP/2 settings. */
  dialDeadlineMs: number;
  /** From `hello` to `welcome`. */
  welcomeDeadlineMs: number;
  /** How long a drained stream is still read for acknowledgements, at most. */
  drainLingerMs: number;
  /** First ceiling of the backoff. */
  backoffBaseMs: number;
  /** Last ceiling of the backoff. */
  backoffCapMs: number;
  /** A session that held this long resets the backoff. */
  backoffResetMs: number;
  /** Refusals by name in a row (token, installation, hello) after which the connection gives up. */
  refusalsMax: number;
  /** A completion that is not acknowledged within this on a live stream is sent again; doubles up to `ackDeadlineCapMs`. */
  ackDeadlineMs: number;
  ackDeadlineCapMs: number;
  /** Without a stream for this long, completions are also offered by the unary CompleteRun, and again at this interval. */
  unaryAfterMs: number;
  /** Deadline of one unary CompleteRun. */
  unaryDeadlineMs: number;
  /** How often the wall clock is compared with the monotonic one. */
  wakeCheckMs: number;
  /** A check that comes this much late means that the machine slept. */
  wakeJumpMs: number;
}

export const defaultTiming: Timing = {
  // The same as the server's patience for a hello (DESIGN 3).
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
  wakeCheckMs: 5_000,
  wakeJumpMs: 15_000,
};

/** Until a `welcome` says otherwise: the timers of DESIGN 5, used only if a server leaves them out. */
export const fallbackHeartbeatMs = 20_000;
export const fallbackTtlMs = 60_000;

/** Limits of a session in bytes, until a `welcome` says otherwise: those of the protocol's field rules. */
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

/** `timeOrigin` is read once at start: a clock that was set since then is followed, to the millisecond. */
let offsetMs = 0;
function wallOffset(): number {
  const drift = Date.now() - (performance.timeOrigin + performance.now() + offsetMs);
  if (Math.abs(drift) > 2) offsetMs += drift;
  return offsetMs;
}
