import { z } from "zod";
import { count, length, lengthMs, milliseconds, type SettingsOf } from "./fields.ts";

/** Schedules, retries, and the time for which ended work is kept. */
export const schedulesSettings = {
  PINION_SWEEP_INTERVAL_MS: milliseconds(
    15_000,
    "Time between two searches for work whose notification was lost",
  ),
  PINION_LOOK_AHEAD_MS: count(
    2_000,
    0,
    60_000,
    "How long before its due time a run is recorded, and claimed for a connected device; 0: at the due time (milliseconds)",
  ),
  PINION_RETRY_BACKOFF_MS: milliseconds(
    10_000,
    "Delay before a second attempt; doubles with each further one",
  ),
  PINION_BACKOFF_AFTER_FAILURES: count(3, 1, 1_000, "Failures in a row after which a watcher is backed off"),
  PINION_PAUSE_AFTER_FAILURES: count(10, 1, 1_000, "Failures in a row after which a watcher is paused"),
  PINION_WATCHER_BACKOFF_MS: milliseconds(
    900_000,
    "First back-off of a watcher; doubles with each further failure",
  ),
  PINION_RETENTION_DAYS: count(30, 1, 3_650, "How long ended runs, slots and events are kept (days)"),
  PINION_CONVERSATION_DAYS: count(
    365,
    1,
    3_650,
    "Time without a message after which a conversation is deleted, with its snapshot (days)",
  ),
  PINION_CLOCK_JUMP: z
    .enum(["confirm", "wait", "ignore"])
    .default("confirm")
    .describe(
      "After a jump of the database's clock by more than an hour forward, nothing is deleted or recorded until a person confirms the jump or the jump is gone (`confirm`), or until the jump has lasted for an hour (`wait`); `ignore` accepts every jump",
    ),
  PINION_INTERVAL_MIN: length(
    "10s",
    "Shortest time between two slots of a schedule, for example 10s or 1m; the org's metadata may have another value (interval_min_ms); 0: none",
  ),
  PINION_SHUTDOWN_MS: milliseconds(20_000, "Time for an orderly stop"),
};

export type SchedulesConfig = {
  failures: {
    retryBackoffMs: number;
    backoffAfter: number;
    pauseAfter: number;
    watcherBackoffMs: number;
  };
  /** Shortest time between two slots of a schedule, unless the org's metadata says otherwise. */
  intervalMsMin: number;
  sweepIntervalMs: number;
  lookAheadMs: number;
  retentionDays: number;
  conversationDays: number;
  clockJump: "confirm" | "wait" | "ignore";
  shutdownMs: number;
};

type Settings = SettingsOf<typeof schedulesSettings>;

export function schedulesConfig(s: Settings): SchedulesConfig {
  return {
    failures: {
      retryBackoffMs: s.PINION_RETRY_BACKOFF_MS,
      backoffAfter: s.PINION_BACKOFF_AFTER_FAILURES,
      pauseAfter: s.PINION_PAUSE_AFTER_FAILURES,
      watcherBackoffMs: s.PINION_WATCHER_BACKOFF_MS,
    },
    intervalMsMin: lengthMs(s.PINION_INTERVAL_MIN),
    sweepIntervalMs: s.PINION_SWEEP_INTERVAL_MS,
    lookAheadMs: s.PINION_LOOK_AHEAD_MS,
    retentionDays: s.PINION_RETENTION_DAYS,
    conversationDays: s.PINION_CONVERSATION_DAYS,
    clockJump: s.PINION_CLOCK_JUMP,
    shutdownMs: s.PINION_SHUTDOWN_MS,
  };
}
