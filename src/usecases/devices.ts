import { refuse } from "../errors.ts";
import { announce, type Cancellation, cancelOfDevice } from "../scheduler/endings/cancels.ts";
import * as agents from "../store/agents/agents.ts";
import { describe } from "../store/people/changes.ts";
import * as tokens from "../store/people/credentials/tokens.ts";
import * as deviceSessions from "../store/people/devices/device-sessions.ts";
import * as devices from "../store/people/devices/devices.ts";
import * as grants from "../store/people/devices/grants.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import * as liveRuns from "../store/work/runs/live-runs.ts";
import * as events from "../store/work/service/events.ts";
import * as turns from "../store/work/turns/turns.ts";
import * as watchers from "../store/work/watchers/watchers.ts";
import type { Surroundings } from "./surroundings.ts";

export type Removal = {
  runsCancelled: number;
  watchersUnpinned: number;
  agentsUnpinned: number;
  /** The tokens that ended with the device. */
  tokenIds: string[];
  /** The session that is to be closed, if a session is open. */
  session: deviceSessions.Session | undefined;
};

/**
 * Removes a device: its watchers and agents are unpinned and show that they have no executor, its
 * tokens and its presence go with it, and its live runs and the turns pinned to it end. Refuses
 * with `not_found`.
 */
export async function remove(
  db: Db,
  options: { orgId: string; deviceId: string; actor: string },
  surroundings: Surroundings,
): Promise<Removal> {
  const { orgId, deviceId, actor } = options;
  const { removal, ended } = await transaction(db, async (tx) => {
    // The lock waits for a transaction that pins a watcher to the device, and prevents further
    // pins.
    const device = await devices.lock(tx, { orgId, deviceId });
    if (!device) refuse("not_found", `there is no device ${deviceId}`);
    await grants.lock(tx, { orgId, deviceId });
    const tokenIds = await tokens.removeOfDevice(tx, { orgId, deviceId });
    const reason = `device "${device.label}" was deleted`;
    const unpinned = await unpin(tx, { orgId, actor, devices: [{ deviceId, reason }] });
    const session = await deviceSessions.lockSession(tx, { orgId, deviceId });
    await devices.remove(tx, { orgId, deviceId, ...device });
    const why = { orgId, deviceId, reason: "the device was deleted" };
    const ended = await cancelOfDevice(tx, why, surroundings);
    const data = {
      label: device.label,
      watchers_unpinned: unpinned.watchers.length,
      agents_unpinned: unpinned.agentEvents.length,
    };
    await events.append(tx, orgId, [
      ...unpinned.watcherEvents,
      ...unpinned.agentEvents,
      { kind: "device.deleted", actor, deviceId, data },
    ]);
    const removal = {
      runsCancelled: countCancelled(ended),
      watchersUnpinned: unpinned.watchers.length,
      agentsUnpinned: unpinned.agentEvents.length,
      tokenIds,
      session,
    };
    return { removal, ended };
  });
  announce(surroundings.doorbell, ended);
  return removal;
}

export type Unpinned = {
  watchers: { watcherId: string; deviceId: string }[];
  watcherEvents: Omit<events.NewEvent, "orgId">[];
  agentEvents: Omit<events.NewEvent, "orgId">[];
};

/**
 * Unpins the watchers and agents of locked devices; the watchers and agents show no_executor with
 * the reason. The locks of all devices are taken in the common order (first the runs, then the
 * turns, then the watchers), so that no deadlock with a completion arises. `alsoPaused`: watchers
 * that the caller pauses next, locked at the same time. Agents are unpinned before the turns of the
 * device end, because the start of a turn locks the agent's pin. The caller appends the events.
 */
export async function unpin(
  tx: Db,
  options: {
    orgId: string;
    actor: string;
    devices: readonly { deviceId: string; reason: string }[];
    alsoPaused?: readonly string[];
  },
): Promise<Unpinned> {
  const { orgId, actor, alsoPaused: watcherIds = [] } = options;
  const deviceIds = options.devices.map(({ deviceId }) => deviceId);
  await liveRuns.lockWithWatchers(tx, {
    ...{ orgId, of: { deviceIds, watcherIds }, for: "edit" },
    beforeWatchers: () => turns.lockOfDevices(tx, { orgId, deviceIds }),
  });
  const unpinned: Unpinned = { watchers: [], watcherEvents: [], agentEvents: [] };
  for (const { deviceId, reason } of options.devices) {
    const watcherIds = await watchers.unpinAll(tx, { orgId, deviceId, reason });
    const data = { ...describe({ device_id: deviceId }, { device_id: null }), status: "no_executor" };
    for (const watcherId of watcherIds) {
      unpinned.watchers.push({ watcherId, deviceId });
      unpinned.watcherEvents.push({ kind: "watcher.updated", actor, watcherId, deviceId, data });
    }
    unpinned.agentEvents.push(...(await agents.unpinAll(tx, { orgId, deviceId, reason, actor })));
  }
  return unpinned;
}

/** Runs that ended as cancelled; runs of a deleted worker go to other workers. */
export function countCancelled({ settled }: Cancellation): number {
  return settled.filter((run) => run.status === "cancelled").length;
}
