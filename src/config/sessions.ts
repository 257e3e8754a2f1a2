import { z } from "zod";
import { ConfigError } from "./config-error.ts";
import { count, milliseconds, type SettingsOf } from "./fields.ts";

/** Sessions of devices, and the rules by which their attempts are lost. */
export const sessionsSettings = {
  PINION_HEARTBEAT_INTERVAL_MS: milliseconds(20_000, "Time between two heartbeats of a device"),
  PINION_HEARTBEAT_TTL_MS: milliseconds(
    60_000,
    "Silence after which a session is closed and its attempts are lost",
  ),
  PINION_HELLO_DEADLINE_MS: milliseconds(10_000, "Time for the first message of a stream"),
  PINION_ACCEPT_DEADLINE_MS: milliseconds(10_000, "Time to accept an assignment before it is pushed again"),
  PINION_SILENT_ATTEMPT_MS: milliseconds(
    180_000,
    "Silence after which an attempt with earlier heartbeats is taken away",
  ),
  PINION_NEVER_BEAT_MS: milliseconds(
    7_200_000,
    "Age at which an attempt without any heartbeat is taken away",
  ),
  PINION_RUN_TIMEOUT_GRACE_MS: milliseconds(
    60_000,
    "How long after a run's timeout the server waits for its device before it ends the run itself",
  ),
  // Below the longest timer of Node with its tenth added.
  PINION_STREAM_AGE_MS: count(
    3_600_000,
    100,
    1_900_000_000,
    "Age at which a stream is drained, ± 10 % (milliseconds)",
  ),
  PINION_REAP_INTERVAL_MS: milliseconds(5_000, "Time between two searches for lost attempts"),
  PINION_MESSAGE_BYTES_MAX: count(
    4_194_304,
    65_536,
    67_108_864,
    "Largest message taken, after decompression (bytes)",
  ),
  PINION_DEVICE_STREAMS: z
    .enum(["bare", "connect"])
    .default("bare")
    .describe(
      "The code for device streams, and for unary calls over gRPC or binary Connect: the bare HTTP/2 stream, or the Connect handler of all other requests",
    ),
  PINION_STREAMS_MAX: count(20_000, 1, 1_000_000, "Device streams per replica"),
};

/** The limits of a session, which its welcome tells the device. */
export type SessionTimers = {
  heartbeatIntervalMs: number;
  ttlMs: number;
  helloDeadlineMs: number;
  acceptDeadlineMs: number;
  ageMsMax: number;
  messageBytesMax: number;
};

export type SessionsConfig = {
  session: SessionTimers & {
    streamsMax: number;
    /** Device streams over gRPC and unary calls are served on the bare HTTP/2 stream. */
    isBare: boolean;
  };
  reaper: {
    intervalMs: number;
    ttlMs: number;
    silentAttemptMs: number;
    neverBeatMs: number;
    runTimeoutGraceMs: number;
  };
};

type Settings = SettingsOf<typeof sessionsSettings>;

export function sessionsConfig(s: Settings): SessionsConfig {
  if (s.PINION_HEARTBEAT_TTL_MS < 2 * s.PINION_HEARTBEAT_INTERVAL_MS) {
    throw new ConfigError("PINION_HEARTBEAT_TTL_MS must be at least twice PINION_HEARTBEAT_INTERVAL_MS");
  }
  return {
    session: {
      heartbeatIntervalMs: s.PINION_HEARTBEAT_INTERVAL_MS,
      ttlMs: s.PINION_HEARTBEAT_TTL_MS,
      helloDeadlineMs: s.PINION_HELLO_DEADLINE_MS,
      acceptDeadlineMs: s.PINION_ACCEPT_DEADLINE_MS,
      ageMsMax: s.PINION_STREAM_AGE_MS,
      messageBytesMax: s.PINION_MESSAGE_BYTES_MAX,
      streamsMax: s.PINION_STREAMS_MAX,
      isBare: s.PINION_DEVICE_STREAMS === "bare",
    },
    reaper: {
      intervalMs: s.PINION_REAP_INTERVAL_MS,
      ttlMs: s.PINION_HEARTBEAT_TTL_MS,
      silentAttemptMs: s.PINION_SILENT_ATTEMPT_MS,
      neverBeatMs: s.PINION_NEVER_BEAT_MS,
      runTimeoutGraceMs: s.PINION_RUN_TIMEOUT_GRACE_MS,
    },
  };
}
