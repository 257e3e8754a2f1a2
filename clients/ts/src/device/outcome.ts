import { DrainReason } from "../gen/pinion/v1/device_pb.js";
import type { DeviceErrorReason } from "./errors.ts";
import type { Timing } from "./timing.ts";

/** The end of one session. A session never rejects; the union lists every outcome. */
export type SessionOutcome =
  /** The session was welcomed and broke later. */
  | { kind: "served"; heldMs: number; reason: string; isWakeUp: boolean }
  /** The server asked for a later reconnect. */
  | {
      kind: "drained";
      heldMs: number;
      drain: DrainReason;
      reconnectAfterMs: number;
      message: string;
      cell: string;
    }
  /** The session was never welcomed. `refusal` is set if the server refused with a known status. */
  | { kind: "retryable"; reason: string; refusal?: DeviceErrorReason; isWakeUp: boolean }
  /** A final error: another try would not help. */
  | { kind: "fatal"; error: DeviceErrorReason; reason: string };

/** Data carried from session to session. */
export interface History {
  /** Count of sessions in a row shorter than `backoffResetMs`; the exponent of the backoff. */
  failures: number;
  /** Count of refusals in a row. */
  refusals: number;
}

export type Decision =
  | { next: "dial"; delayMs: number; reason: string; history: History }
  | { next: "close"; error: DeviceErrorReason; message: string };

/** Failures beyond the maximum no longer lengthen the backoff; keeps the exponent finite. */
const EXPONENT_MAX = 16;

/**
 * Full jitter from the first retry on: uniform in [0, min(cap, base · 2^failures)).
 * ("Exponential Backoff And Jitter", AWS Architecture Blog, 2015.)
 */
export function backoffMs(failures: number, timing: Timing, random: () => number): number {
  const ceiling = Math.min(timing.backoffCapMs, timing.backoffBaseMs * 2 ** Math.min(failures, EXPONENT_MAX));
  return Math.round(random() * ceiling);
}

/**
 * Decides, from an outcome, whether and when to dial again. No other code decides this.
 *
 * Only a session of at least `backoffResetMs` resets the backoff; otherwise the device would dial a
 * server that accepts and drops every few milliseconds. A refusal with a known status is tried
 * `refusalsMax` times, because a replica without its database may refuse a device and accept the
 * same device a second later.
 */
export function decide(
  outcome: SessionOutcome,
  history: History,
  timing: Timing,
  random = Math.random,
): Decision {
  switch (outcome.kind) {
    case "fatal":
      return { next: "close", error: outcome.error, message: outcome.reason };
    case "served": {
      const failures = outcome.heldMs >= timing.backoffResetMs ? 0 : history.failures + 1;
      const delayMs = outcome.isWakeUp ? 0 : backoffMs(failures, timing, random);
      return { next: "dial", delayMs, reason: outcome.reason, history: { failures, refusals: 0 } };
    }
    case "drained": {
      if (outcome.drain === DrainReason.REVOKED) {
        return {
          next: "close",
          error: "revoked",
          // The server tells devices from fleet workers and gives the remedy.
          message: outcome.message || "this device was removed or its token revoked; enrol it again",
        };
      }
      const failures = outcome.heldMs >= timing.backoffResetMs ? 0 : history.failures + 1;
      // Two daemons with the same identity would replace each other for ever: a replaced session
      // waits longer each time.
      const slower = outcome.drain === DrainReason.REPLACED ? backoffMs(failures, timing, random) : 0;
      return {
        next: "dial",
        delayMs: Math.max(outcome.reconnectAfterMs, slower),
        reason: `drained (${DrainReason[outcome.drain]?.toLowerCase() ?? outcome.drain})`,
        history: { failures, refusals: 0 },
      };
    }
    case "retryable": {
      const refusals = outcome.refusal === undefined ? 0 : history.refusals + 1;
      if (outcome.refusal !== undefined && refusals >= timing.refusalsMax) {
        return { next: "close", error: outcome.refusal, message: outcome.reason };
      }
      const failures = history.failures + 1;
      const delayMs = outcome.isWakeUp ? 0 : backoffMs(failures - 1, timing, random);
      return { next: "dial", delayMs, reason: outcome.reason, history: { failures, refusals } };
    }
  }
}
