import type { Cancellation } from "../scheduler/endings/cancels.ts";
import { recordDue } from "../scheduler/slots/record-due.ts";
import { eventOf } from "../scheduler/slots/recording.ts";
import type { Db } from "../store/pg/database.ts";
import * as liveRuns from "../store/work/runs/live-runs.ts";
import * as stranded from "../store/work/runs/stranded.ts";
import * as events from "../store/work/service/events.ts";
import * as hooks from "../store/work/watchers/hooks.ts";
import type { RecordedRun } from "../store/work/watchers/slot-rows.ts";
import * as watchers from "../store/work/watchers/watchers.ts";
import { announceAll, cancelOfWatcher, type Surroundings } from "./surroundings.ts";

export type Stranded = {
  watcherIds: string[];
  runsCancelled: number;
  due: RecordedRun[];
  cancellations: Cancellation[];
};

export const noneStranded: Stranded = { watcherIds: [], runsCancelled: 0, due: [], cancellations: [] };

/**
 * Pauses the active watchers of a device, or of a sponsor, whose sponsor may not use their device,
 * or may not read the results that they send, each with the event `watcher.paused`, and ends their
 * live runs; disables the hooks whose maker may not use the device, each with the event
 * `hook.updated`. In the caller's transaction, in which only events may follow.
 */
export async function pauseStranded(
  tx: Db,
  options: { orgId: string; of: stranded.Whose; actor: string },
  surroundings: Surroundings,
): Promise<Stranded> {
  const { orgId, actor } = options;
  const disabledHooks = await stranded.disableHooks(tx, options);
  const disabled = disabledHooks.map(({ slug, watcherId, deviceId, sponsor }) => ({
    ...{ kind: "hook.updated", actor, watcherId, deviceId },
    data: {
      hook: slug,
      changed: ["isDisabled"],
      reason: `${sponsor}, who made it, may not use the device any more`,
    },
  }));
  const found = await stranded.find(tx, options);
  if (found.length === 0) {
    if (disabled.length > 0) await events.append(tx, orgId, disabled);
    return noneStranded;
  }
  const watcherIds = found.map(({ watcherId }) => watcherId);
  const runsCancelled = await liveRuns.lockWithWatchers(tx, { orgId, of: { watcherIds }, for: "edit" });
  const due: RecordedRun[] = [];
  const written: Omit<events.NewEvent, "orgId">[] = [...disabled];
  for (const { watcherId, deviceId, deviceLabel, sponsor, deed } of found) {
    const recorded = await recordDue(tx, orgId, watcherId, surroundings.quotas);
    due.push(...recorded);
    const reason =
      `${sponsor} may not ${lostDeeds[deed](deviceLabel)} any more; ` +
      "its owner, or an owner or admin of the org, may resume the watcher";
    await watchers.setPaused(tx, { orgId, watcherId, reason });
    const paused = { kind: "watcher.paused", actor, watcherId, deviceId, data: { reason } };
    written.push(...recorded.map(eventOf), paused);
  }
  const cancellations: Cancellation[] = [];
  for (const { watcherId, deviceLabel, deed } of found) {
    const why = { reason: `the right to ${deed} device "${deviceLabel}" was taken back` };
    cancellations.push(await cancelOfWatcher(tx, { orgId, watcherId }, why, surroundings));
  }
  await events.append(tx, orgId, written);
  return { watcherIds, runsCancelled, due, cancellations };
}

/**
 * Locks the hooks that {@link pauseStranded} may disable, and finds the watchers that it pauses,
 * for a caller who locks watchers before: hooks are locked before runs, and all watchers together.
 */
export async function lockStake(
  tx: Db,
  { orgId, of }: { orgId: string; of: { sponsor: string } },
): Promise<string[]> {
  await hooks.lockMadeBy(tx, { orgId, createdBy: of.sponsor });
  return (await stranded.find(tx, { orgId, of })).map(({ watcherId }) => watcherId);
}

const lostDeeds: Record<stranded.StrandedWatcher["deed"], (label: string) => string> = {
  use: (label) => `use device "${label}"`,
  read: (label) => `read device "${label}", whose results the watcher sends to destinations,`,
};

/** Announces, after the commit, what {@link pauseStranded} recorded and ended. */
export function announceStranded(surroundings: Surroundings, { due, cancellations }: Stranded): void {
  if (due.length > 0) surroundings.doorbell.recorded(due);
  announceAll(surroundings, cancellations);
}
