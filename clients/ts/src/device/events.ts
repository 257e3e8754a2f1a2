import type { Activity } from "../gen/pinion/v1/activity_pb.js";
import type { AttemptResult } from "./completion.ts";
import type { DeviceErrorReason } from "./errors.ts";
import type { ConnectionState } from "./lifecycle.ts";

/**
 * What the server said about a completion. `stored_late`: it is the run's end although its attempt had been taken away.
 * `superseded`: kept as a late result. `unknown` and `invalid`: not stored, and set aside here.
 */
export type Verdict = "stored" | "stored_late" | "already_stored" | "superseded" | "unknown" | "invalid";

/** Names the attempt that an event is about. */
export interface AttemptNames {
  runId: string;
  attemptToken: string;
  /** The watcher's slug; empty for a turn, or after a restart. */
  watcher: string;
}

/** What happens on a device connection, for display and for tests. `atMs` is ms since the epoch, with fractions. */
export type DeviceEvent = { atMs: number } & (
  | { type: "state"; state: ConnectionState; from: ConnectionState }
  | { type: "connected"; deviceId: string; sessionEpoch: bigint; replicaId: string; heartbeatMs: number }
  /** `retryInMs` is given by the `retrying` event that follows. */
  | { type: "disconnected"; reason: string; heldMs: number }
  | { type: "drained"; reason: string; reconnectAfterMs: number; message: string }
  | { type: "retrying"; inMs: number; reason: string; failures: number }
  /** The machine slept for about this long; the connection is made anew. */
  | { type: "woke"; sleptMs: number }
  | { type: "fatal"; error: DeviceErrorReason; message: string }
  /** Work arrived; `atMs` is the moment of its frame. `firedAtMs`: when the run became due, by the server's clock. */
  | ({
      type: "assignment";
      attempt: number;
      agentKind: string;
      firedAtMs: number | undefined;
      timeoutMs: number | undefined;
      /** W3C trace context of the run; empty while the server writes no traces. */
      traceparent: string;
    } & AttemptNames)
  /** A copy of an attempt that is already here; it was dropped. */
  | ({ type: "duplicate" } & AttemptNames)
  | ({ type: "accepted" } & AttemptNames)
  | ({ type: "rejected"; reason: string; message: string } & AttemptNames)
  /** `isSent` is false for a piece that only the display sees: no stream, or too much output. */
  | ({
      type: "output";
      stream: "stdout" | "stderr";
      data: Uint8Array;
      sequence: bigint;
      isSent: boolean;
    } & AttemptNames)
  /** What an agent does; `isSent` as with output. */
  | ({ type: "activity"; activity: Activity; isSent: boolean } & AttemptNames)
  | ({ type: "cancel"; reason: string } & AttemptNames)
  /** The agent of a cancelled attempt is gone. */
  | ({ type: "cancelled" } & AttemptNames)
  /** The attempt was not ours any more; its agent was stopped and its result dropped. */
  | ({ type: "aborted" } & AttemptNames)
  /** The attempt ended; its result is in the outbox. */
  | ({ type: "finished"; result: AttemptResult; durationMs: number } & AttemptNames)
  /** The server has the result. `storeMs`: from the end of the attempt to this acknowledgement. */
  | ({
      type: "acknowledged";
      verdict: Verdict;
      windowId: string;
      message: string;
      storeMs: number;
    } & AttemptNames)
  /** A result was set aside for a person to look at. */
  | { type: "set_aside"; path: string; problem: string }
);

/** An event without its time. */
export type DeviceEventBody = DeviceEvent extends infer E
  ? E extends { atMs: number }
    ? Omit<E, "atMs">
    : never
  : never;
