import type { Bounds } from "../checker/world.ts";

export type RigOptions = {
  seed: number;
  replicas: number;
  devices: number;
  /** Fleet workers, which take the runs of watchers without a device; default 4. */
  workers?: number;
  hosts: number;
  /** Calls of people and services. */
  callsPerSecond: number;
  /** The minimum frequency of scheduled runs for each device; by default, the workload's. */
  every?: number;
  /** Maximum duration of an attempt's work. */
  workMsMax?: number;
  /**
   * The source tree of the replicas and the devices; this checkout, unless a mutation is tested.
   */
  sourceTree?: string | undefined;
  /** The script of a built command for the replicas, in place of sources. */
  program?: string | undefined;
  dropsOutbox?: boolean;
  prefersUnary?: boolean;
  /** Devices complete all assigned runs. */
  isReliable?: boolean;
  /** Devices with hooks, chains and messages beside their other work; default 4. */
  trafficDevices?: number;
  /** A standby, to which the database can fail over; default true. */
  hasStandby?: boolean;
  /** Maximum wait of `settle` while nothing ends, in ms. */
  settleMsMax?: number;
  onProgress?: (text: string) => void;
};

/** The timers of the rig: short, and in the relations of the defaults. */
export const bounds: Bounds = {
  ttlMs: 4_000,
  silentAttemptMs: 8_000,
  // A machine that runs the whole rig at once is late by seconds at times.
  slackMs: 20_000,
  sweepMs: 3_000,
  pushSlackMs: 5_000,
};

export const environment: { [name: string]: string } = {
  PINION_HEARTBEAT_INTERVAL_MS: "1000",
  PINION_HEARTBEAT_TTL_MS: String(bounds.ttlMs),
  PINION_HELLO_DEADLINE_MS: "3000",
  PINION_ACCEPT_DEADLINE_MS: "1500",
  PINION_SILENT_ATTEMPT_MS: String(bounds.silentAttemptMs),
  PINION_NEVER_BEAT_MS: "20000",
  PINION_RUN_TIMEOUT_GRACE_MS: "3000",
  PINION_STREAM_AGE_MS: "30000",
  PINION_INTERVAL_MIN: "1s",
  PINION_SWEEP_INTERVAL_MS: String(bounds.sweepMs),
  PINION_REAP_INTERVAL_MS: "500",
  PINION_RETRY_BACKOFF_MS: "500",
  PINION_WATCHER_BACKOFF_MS: "2000",
  // The workload goes on, however often its work fails.
  PINION_PAUSE_AFTER_FAILURES: "1000",
  PINION_SHUTDOWN_MS: "5000",
  PINION_DATABASE_CONNECTIONS: "6",
  PINION_SECRET_KEYS: `chaos:${Buffer.alloc(32, 7).toString("base64")}`,
  PINION_DESTINATION_NETWORKS: "127.0.0.0/8",
};
