import type { Digest } from "./history.ts";
import type { TrafficRows } from "./traffic.ts";

/**
 * The rows of the database at the end. Moments are milliseconds since the epoch, by the true time:
 * the rig corrects the moments that the database has recorded by a wrong clock.
 */

export type RunStatus =
  | "pending"
  | "claimed"
  | "running"
  | "completed"
  | "failed"
  | "timeout"
  | "cancelled"
  | "skipped";

export type PastAttempt = {
  attempt: number;
  token: string;
  claimedAt: number;
  endedAt: number;
  isReported: boolean;
  /** The attempt was lost in a failover; its device offered the result again. */
  isRestored?: boolean;
};

export type RunRow = {
  id: string;
  org: string;
  watcher: string;
  /** Of a run that is pinned to no device: the worker that has or had the run. */
  device: string | null;
  source: "scheduled" | "manual" | "backfill" | "hook" | "after";
  scheduledFor: number | null;
  dueAt: number;
  status: RunStatus;
  token: string | null;
  claimedAt: number | null;
  finishedAt: number | null;
  retryOf: string | null;
  isReported: boolean;
  windowId: string | null;
  skipReason: string | null;
  reason: string;
  past: PastAttempt[];
};

export type EventRow = {
  kind: string;
  org: string;
  run: string | null;
  watcher: string | null;
  /** The reaper's rule by which the attempt was taken away. */
  rule: string | null;
  scheduledFor: number | null;
  committedAt: number;
  /** Committed while the database's clock was wrong; `committedAt` is the true time. */
  isByWrongClock?: boolean;
};

export type WindowRow = { id: string; org: string; watcher: string; run: string; output: Digest };
/** A result that arrived after its attempt had been taken away. */
export type LateRow = { run: string; token: string };
export type SlotRow = { org: string; watcher: string; scheduledFor: number; run: string };
/** `device`: null if its runs are for any fleet worker of the org. */
export type WatcherRow = { id: string; org: string; device: string | null; nextSlotAt: number | null };
export type DeviceRow = { id: string; org: string; isWorker?: boolean };

export type Rows = {
  runs: RunRow[];
  /** In the order of their commits within an org. */
  events: EventRow[];
  windows: WindowRow[];
  late: LateRow[];
  slots: SlotRow[];
  backlog: { watcher: string; scheduledFor: number }[];
  watchers: WatcherRow[];
  devices: DeviceRow[];
  /** Of hooks, chains and destinations. */
  traffic?: TrafficRows;
};

/** A run keeps this many past attempts; beyond, the oldest attempts are no longer known. */
export const pastAttemptsMax = 20;
