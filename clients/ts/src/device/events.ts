import type { Activity } from "../gen/pinion/v1/activity_pb.js";
import type { DeviceErrorReason } from "./errors.ts";
import type { ConnectionState } from "./lifecycle.ts";
import type { AttemptResult } from "./results/completion.ts";

/**
 * The server's verdict on a completion. `stored_late`: stored as the run's end although the attempt
 * had been taken away. `superseded`: kept as a late result. `unknown` and `invalid`: not stored,
 * and set aside on the device.
 */
export type Verdict = "stored" | "stored_late" | "already_stored" | "superseded" | "unknown" | "invalid";

/** Names of an event's attempt. */
export interface AttemptNames {
  workId: string;
  attemptToken: string;
  /** The watcher's slug; empty for a turn, or after a restart. */
  watcher: string;
}

/**
 * Events of a device connection, for display and for tests. `atMs` is in ms since the epoch, with
 * fractions.
 */
export type DeviceEvent = { atMs: number } & (
  | { type: "state"; state: ConnectionState; from: ConnectionState }
  | {
      type: "connected";
      deviceId: string;
      sessionEpoch: bigint;
      replicaId: string;
      heartbeatMs: number;
      /** The version of the daemon that the server gives; empty: none. */
      daemonVersion: string;
    }
  /** The following `retrying` event gives the delay. */
  | { type: "disconnected"; reason: string; heldMs: number }
  /** `cell`: the org moved there. */
  | { type: "drained"; reason: string; reconnectAfterMs: number; message: string; cell?: string }
  | { type: "retrying"; inMs: number; reason: string; failures: number }
  /** The machine slept for about `sleptMs` ms; the device connects again. */
  | { type: "woke"; sleptMs: number }
  | { type: "fatal"; error: DeviceErrorReason; message: string }
  /**
   * Work arrived; `atMs` is the arrival time of the frame. `firedAtMs`: time the run became due, by
   * the server's clock.
   */
  | ({
      type: "assignment";
      attempt: number;
      agentKind: string;
      firedAtMs: number | undefined;
      timeoutMs: number | undefined;
      /** W3C trace context of the run; empty without traces on the server. */
      traceparent: string;
    } & AttemptNames)
  /** A copy of a known attempt; the copy was dropped. */
  | ({ type: "duplicate" } & AttemptNames)
  | ({ type: "accepted" } & AttemptNames)
  | ({ type: "rejected"; reason: string; message: string } & AttemptNames)
  /** `isSent` is false for a piece shown only locally: no stream, or too much output. */
  | ({
      type: "output";
      stream: "stdout" | "stderr";
      data: Uint8Array;
      sequence: bigint;
      isSent: boolean;
    } & AttemptNames)
  /** An agent's activity; `isSent` as for output. */
  | ({ type: "activity"; activity: Activity; isSent: boolean } & AttemptNames)
  | ({ type: "cancel"; reason: string } & AttemptNames)
  /** The agent of a cancelled attempt is gone. */
  | ({ type: "cancelled" } & AttemptNames)
  /** The attempt was superseded; the agent was stopped and its result dropped. */
  | ({ type: "aborted" } & AttemptNames)
  /** The attempt ended and its result is in the outbox. */
  | ({ type: "finished"; result: AttemptResult; durationMs: number } & AttemptNames)
  /**
   * The server has the result. `storeMs`: ms from the end of the attempt to this acknowledgement.
   */
  | ({
      type: "acknowledged";
      verdict: Verdict;
      windowId: string;
      message: string;
      storeMs: number;
    } & AttemptNames)
  /** A result was set aside for a person. */
  | { type: "set_aside"; path: string; problem: string }
);

/** An event without `atMs`. */
export type DeviceEventBody = DeviceEvent extends infer E
  ? E extends { atMs: number }
    ? Omit<E, "atMs">
    : never
  : never;
