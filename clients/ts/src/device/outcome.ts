import { DrainReason } from "../gen/pinion/v1/device_pb.js";
import type { DeviceErrorReason } from "./errors.ts";
import type { Timing } from "./timing.ts";

/** How one session ended. A session never rejects: this is all that can become of it. */
export type SessionOutcome =
  /** It was welcomed, and broke later. */
  | { kind: "served"; heldMs: number; reason: string; isWakeUp: boolean }
  /** The server asked us to come back later. */
  | { kind: "drained"; heldMs: number; drain: DrainReason; reconnectAfterMs: number; message: string }
  /** It was never welcomed. `refusal` is set if the server turned us down by name. */
  | { kind: "retryable"; reason: string; refusal?: DeviceErrorReason; isWakeUp: boolean }
  /** There is no use in another try. */
  | { kind: "fatal"; error: DeviceErrorReason; reason: string };

/** What is remembered from one session to the next. */
export interface History {
  /** Sessions in a row that did not hold; the exponent of the backoff. */
  failures: number;
  /** Refusals by name in a row. */
  refusals: number;
}

export type Decision =
  | { next: "dial"; delayMs: number; reason: string; history: History }
  | { next: "close"; error: DeviceErrorReason; message: string };

/** Failures beyond this no longer lengthen the backoff; keeps the exponent finite. */
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
 * What an outcome means: the one place that decides whether, and when, to dial again.
 *
 * The backoff starts anew only after a session that held for `backoffResetMs`; otherwise a server that accepts and drops
 * would be dialled every few milliseconds. A refusal by name is tried `refusalsMax` times, because a replica that has
 * lost its database may refuse what it would take a second later.
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
          // The server knows whether it is a device or a fleet worker, and says what helps.
          message: outcome.message || "this device was removed or its token revoked; enrol it again",
        };
      }
      const failures = outcome.heldMs >= timing.backoffResetMs ? 0 : history.failures + 1;
      // Two daemons with one identity would throw each other out for ever: a replaced session comes back ever slower.
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
