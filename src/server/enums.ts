/** Words of the store in the enums of the API: of runs, and the operating systems of devices. */
import { AttentionReason } from "#gen/pinion/v1/activity_pb.js";
import { Os } from "#gen/pinion/v1/device_pb.js";
import { Notification, RunSource, RunStatus, SkipReason } from "#gen/pinion/v1/run_pb.js";
import type { Os as OsName } from "../store/people/devices/devices.ts";
import type { RunRow } from "../store/work/runs/runs.ts";

export const runStatuses: Record<RunRow["status"], RunStatus> = {
  pending: RunStatus.PENDING,
  claimed: RunStatus.CLAIMED,
  running: RunStatus.RUNNING,
  completed: RunStatus.COMPLETED,
  failed: RunStatus.FAILED,
  timeout: RunStatus.TIMEOUT,
  cancelled: RunStatus.CANCELLED,
  skipped: RunStatus.SKIPPED,
};

export const skipReasons: Record<NonNullable<RunRow["skipReason"]>, SkipReason> = {
  overlap: SkipReason.OVERLAP,
  cooldown: SkipReason.COOLDOWN,
  missed: SkipReason.MISSED,
  offline_expired: SkipReason.OFFLINE_EXPIRED,
  no_executor: SkipReason.NO_EXECUTOR,
  limit: SkipReason.LIMIT,
  budget: SkipReason.BUDGET,
};

const sources: Record<string, RunSource> = {
  scheduled: RunSource.SCHEDULED,
  manual: RunSource.MANUAL,
  backfill: RunSource.BACKFILL,
  hook: RunSource.HOOK,
  after: RunSource.AFTER,
};

const notifications: Record<string, Notification> = {
  none: Notification.NONE,
  on_failure: Notification.ON_FAILURE,
  always: Notification.ALWAYS,
};

export const sourceOf = (source: string) => sources[source] ?? RunSource.UNSPECIFIED;
export const notificationOf = (notification: string) =>
  notifications[notification] ?? Notification.UNSPECIFIED;

/**
 * The names of the store: "permission_denied". Names of a newer version are passed over when they
 * are read.
 */
export const attentionNames: Partial<Record<AttentionReason, string>> = Object.fromEntries(
  Object.entries(AttentionReason)
    .filter(([, value]) => typeof value === "number" && value !== AttentionReason.UNSPECIFIED)
    .map(([name, value]) => [value, name.toLowerCase()]),
);

export const attentionOf = (names: readonly string[]): AttentionReason[] =>
  names.flatMap((name) => AttentionReason[name.toUpperCase() as keyof typeof AttentionReason] ?? []);

export const osEnum: Record<OsName, Os> = {
  macos: Os.MACOS,
  linux: Os.LINUX,
  windows: Os.WINDOWS,
  ios: Os.IOS,
  android: Os.ANDROID,
  browser: Os.BROWSER,
};

const names = new Map(Object.entries(osEnum).map(([name, os]) => [os, name as OsName]));

/** Undefined for no system, and for a system of a newer version. */
export function osNameOf(os: Os): OsName | undefined {
  return names.get(os);
}
