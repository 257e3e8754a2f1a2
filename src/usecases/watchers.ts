/**
 * People's edits of watchers. Each use-case is one transaction of statements of the store and
 * passes of the scheduler; the listeners hear of the changes after the commit. A change of the
 * schedule records the due slots first (R2, R3). A pause ends a run that is recorded ahead of its
 * moment.
 */

import { refuse } from "../errors.ts";
import { type Cancellation, nothingCancelled } from "../scheduler/endings/cancels.ts";
import { positionAfter } from "../scheduler/schedule/schedule.ts";
import { surePosition } from "../scheduler/slots/clock-doubt.ts";
import { recordDue } from "../scheduler/slots/record-due.ts";
import { eventOf } from "../scheduler/slots/recording.ts";
import * as agents from "../store/agents/agents.ts";
import { describe } from "../store/people/changes.ts";
import * as pins from "../store/people/devices/pins.ts";
import * as rights from "../store/people/devices/rights.ts";
import * as defaultAgents from "../store/people/orgs/default-agents.ts";
import * as requests from "../store/people/requests.ts";
import * as clock from "../store/pg/clock.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import { rehearsable } from "../store/pg/dry-run.ts";
import * as destinations from "../store/work/messages/destinations.ts";
import * as liveRuns from "../store/work/runs/live-runs.ts";
import * as events from "../store/work/service/events.ts";
import * as chains from "../store/work/watchers/chains.ts";
import * as hooks from "../store/work/watchers/hooks.ts";
import type { RecordedRun } from "../store/work/watchers/slot-rows.ts";
import { fieldsOf, notifyOf, valuesOf, type WatcherValues } from "../store/work/watchers/watcher-values.ts";
import * as watchers from "../store/work/watchers/watchers.ts";
import { newId } from "../values/ids.ts";
import { announceAll, cancelOfWatcher, type Surroundings } from "./surroundings.ts";

type Watcher = watchers.Watcher;
type Values = WatcherValues;

/** A watcher, named by its id or its slug, and the actor. */
type Asked = { orgId: string; watcher: string; actor: string };

/**
 * A new watcher, with the event `watcher.created`. A repeat of a request id returns the watcher
 * that the first request made. Refuses with `already_exists` for a taken slug, and `not_found` for
 * the agent or the device.
 */
export async function create(
  db: Db,
  options: {
    orgId: string;
    actor: string;
    slug: string;
    requestId: string;
    values: Values;
    /** Makes the checks and returns the result, and writes nothing. */
    isDryRun?: boolean;
  },
  surroundings: Pick<Surroundings, "scheduleChanged">,
): Promise<Watcher> {
  const { orgId, actor, slug, requestId, isDryRun = false } = options;
  const request = { orgId, actor, requestId, rpc: "WatcherService/CreateWatcher" };
  const watcher = await rehearsable(db, isDryRun, async (tx) => {
    const made = await requests.begin(tx, request);
    if (made) return watchers.get(tx, { orgId, watcher: made.watcher_id });
    const values = await withDestinations(tx, orgId, options.values);
    const resolved = { ...values, agentId: await requireAgentId(tx, { orgId, agentId: values.agentId }) };
    if (values.deviceId) await requireDevice(tx, { orgId, deviceId: values.deviceId });
    await requireTellable(tx, orgId, values);
    const watcherId = newId();
    const position = await surePosition(tx, { watcherId, ...values }, await clock.now(tx));
    const isNew = await watchers.insert(tx, {
      ...{ orgId, watcherId, slug, sponsor: actor, position },
      values: resolved,
    });
    if (!isNew) {
      refuse("already_exists", `a watcher with the slug "${slug}" exists already`, { field: "slug" });
    }
    if (values.after.length > 0) await chains.follow(tx, { orgId, watcherId, after: values.after });
    await requests.record(tx, request, { watcher_id: watcherId });
    const watcher = await watchers.get(tx, { orgId, watcher: watcherId });
    const data = { slug, version: 1 };
    await events.append(tx, orgId, [
      { kind: "watcher.created", actor, watcherId, deviceId: values.deviceId, data },
    ]);
    return watcher;
  });
  if (!isDryRun) surroundings.scheduleChanged();
  return watcher;
}

/** An edit of a watcher. */
export type Edit = Asked & {
  /** 0: any version. */
  expectedVersion: number;
  change: (current: Watcher) => Values;
  /** The caller decided on the pin, also if the pin stays the same: that ends no_executor. */
  isPinDecided: boolean;
  /** Checks and answers as ever, and leaves nothing. */
  isDryRun?: boolean;
};

/**
 * Edits a watcher, with the event `watcher.updated`. `change` gets the watcher and returns the new
 * values; an edit without a change writes nothing. Due slots are recorded under the old schedule
 * first; a changed schedule starts from now. Refuses with `not_found` (watcher, agent, device) and
 * `aborted` (`expectedVersion`).
 */
export async function update(db: Db, edit: Edit, surroundings: Surroundings): Promise<Watcher> {
  const { orgId, isDryRun = false } = edit;
  const { watcher, due } = await rehearsable(db, isDryRun, async (tx) => {
    await holdNewPin(tx, edit);
    const watcherId = await watchers.lock(tx, { ...edit, for: "edit" });
    // The time is read before the due slots are recorded. A slot between the two moments is
    // recorded under the old schedule, and is not recorded again (R2) if the new schedule has the
    // same slot.
    const after = await clock.now(tx);
    // A dry run records no due slots, because they are not a part of the edit.
    const due = isDryRun ? [] : await recordDue(tx, orgId, watcherId, surroundings.quotas);
    const current = await watchers.get(tx, { orgId, watcher: watcherId });
    requireVersion(current, edit.expectedVersion);
    // The guard checked the pin before this row was locked.
    if (current.device_id) await rights.requireStill(tx, { orgId, deviceId: current.device_id, deed: "use" });
    const written = await writeEdit(tx, edit, current, after);
    await events.append(tx, orgId, [...due.map(eventOf), ...written]);
    if (written.length === 0) return { watcher: current, due };
    return { watcher: await watchers.get(tx, { orgId, watcher: watcherId }), due };
  });
  if (!isDryRun) changed(surroundings, due);
  return watcher;
}

/** Locks the device that the edit pins to, before the watcher: see pins.hold. */
async function holdNewPin(tx: Db, { orgId, watcher, change }: Edit): Promise<void> {
  const current = await watchers.get(tx, { orgId, watcher });
  const { deviceId } = change(current);
  if (deviceId && deviceId !== current.device_id) await pins.hold(tx, { orgId, deviceId });
}

function requireVersion(current: Watcher, expected: number): void {
  if (expected === 0 || expected === current.version) return;
  refuse("aborted", `the watcher is at version ${current.version}, not ${expected}; read it again`, {
    retryAfterMs: 0,
  });
}

/**
 * Writes the changes of an edit to a locked watcher; returns the event, or none without a change.
 */
async function writeEdit(
  tx: Db,
  edit: Edit,
  current: Watcher,
  after: Date,
): Promise<Omit<events.NewEvent, "orgId">[]> {
  const { orgId, actor } = edit;
  const watcherId = current.id;
  const before = valuesOf(current);
  const wanted = await withDestinations(tx, orgId, edit.change(current));
  const isAfterNew = JSON.stringify(wanted.after) !== JSON.stringify(before.after);
  const values = {
    ...wanted,
    ...(wanted.agentId === before.agentId
      ? {}
      : { agentId: await requireAgentId(tx, { orgId, agentId: wanted.agentId }) }),
    ...(isAfterNew ? { after: await chains.follow(tx, { orgId, watcherId, after: wanted.after }) } : {}),
  };
  const { changed, changes } = describe(fieldsOf(before), fieldsOf(values));
  const isAdopted = current.status === "no_executor" && edit.isPinDecided;
  if (changed.length === 0 && !isAdopted) return [];
  if (values.deviceId && changed.includes("device_id")) {
    await requireDevice(tx, { orgId, deviceId: values.deviceId });
  }
  if (changed.includes("notify") || changed.includes("device_id")) await requireTellable(tx, orgId, values);
  const isScheduleNew = changed.includes("schedule") || changed.includes("time_zone");
  const startsAnew = current.status !== "paused" && (isScheduleNew || (isAdopted && !current.next_slot_at));
  const version = current.version + 1;
  await watchers.write(tx, {
    ...{ orgId, watcherId, version, values, sponsor: actor, isAdopted },
    ...(startsAnew ? { position: await surePosition(tx, { watcherId, ...values }, after) } : {}),
    // The same slot with another due time: the position after the millisecond before the slot.
    ...(!startsAnew && changed.includes("jitter") && values.schedule !== null && current.next_slot_at
      ? {
          position: positionAfter({ watcherId, ...values }, new Date(current.next_slot_at.getTime() - 1)),
        }
      : {}),
  });
  const data = { version, changed, changes };
  return [{ kind: "watcher.updated", actor, watcherId, deviceId: values.deviceId, data }];
}

/** The values with the slugs of the destinations that they name. Refuses with `not_found`. */
async function withDestinations(tx: Db, orgId: string, values: Values): Promise<Values> {
  const { notify } = values.agentWork as { notify?: { to: string }[] };
  if (!notify) return values;
  const slugs = await destinations.requireAll(tx, {
    orgId,
    destinations: notify.map(({ to }) => to),
    field: "spec.notify",
  });
  const named = notify.map((entry) => ({ ...entry, to: slugs.get(entry.to) }));
  return { ...values, agentWork: { ...values.agentWork, notify: named } };
}

/** Only people who may read the device may send results of its runs to a destination. */
async function requireTellable(tx: Db, orgId: string, values: Values): Promise<void> {
  if (values.deviceId && notifyOf(values))
    await rights.requireStill(tx, { orgId, deviceId: values.deviceId, deed: "read" });
}

/**
 * Stops a watcher's schedule, with the event `watcher.paused`. Due slots are recorded first, and a
 * run that is not due yet ends. A paused watcher does not change. Refuses with `not_found`, and
 * with `failed_precondition` a watcher without an executor.
 */
export async function pause(
  db: Db,
  options: Asked & { reason: string },
  surroundings: Surroundings,
): Promise<Watcher> {
  const { orgId, actor, reason } = options;
  const { watcher, due, cancellation } = await transaction(db, async (tx) => {
    const watcherId = await lockWithRuns(tx, options, { for: "edit" });
    const due = await recordDue(tx, orgId, watcherId, surroundings.quotas);
    const current = await watchers.get(tx, { orgId, watcher: watcherId });
    if (current.status === "no_executor") refuseOrphan(current);
    if (current.status === "paused") {
      await events.append(tx, orgId, due.map(eventOf));
      return { watcher: current, due, cancellation: nothingCancelled };
    }
    await watchers.setPaused(tx, { orgId, watcherId, reason });
    const watcher = await watchers.get(tx, { orgId, watcher: watcherId });
    const why = { reason: "the watcher was paused", only: "ahead" } as const;
    const cancellation = await cancelOfWatcher(tx, { orgId, watcherId }, why, surroundings);
    await events.append(tx, orgId, [
      ...due.map(eventOf),
      { kind: "watcher.paused", actor, watcherId, data: { reason } },
    ]);
    return { watcher, due, cancellation };
  });
  announceAll(surroundings, [cancellation]);
  changed(surroundings, due);
  return watcher;
}

/**
 * Starts a watcher's schedule again from the next slot after now, and resets its failures, with the
 * event `watcher.resumed`. An active watcher without failures does not change. Has the refusals of
 * {@link pause}.
 */
export async function resume(db: Db, options: Asked, surroundings: Surroundings): Promise<Watcher> {
  const { orgId, actor } = options;
  const { watcher, due } = await transaction(db, async (tx) => {
    const watcherId = await watchers.lock(tx, { ...options, for: "edit" });
    const after = await clock.now(tx);
    const due = await recordDue(tx, orgId, watcherId, surroundings.quotas);
    const current = await watchers.get(tx, { orgId, watcher: watcherId });
    if (current.status === "no_executor") refuseOrphan(current);
    const hasFailures = current.consecutive_failures > 0 || current.backoff_until !== null;
    if (current.status === "active" && !hasFailures) {
      await events.append(tx, orgId, due.map(eventOf));
      return { watcher: current, due };
    }
    const values = valuesOf(current);
    await requireTellable(tx, orgId, values);
    await watchers.setActive(tx, {
      ...{ orgId, watcherId, sponsor: actor },
      ...(current.status === "paused"
        ? { position: await surePosition(tx, { watcherId, ...values }, after) }
        : {}),
    });
    const watcher = await watchers.get(tx, { orgId, watcher: watcherId });
    await events.append(tx, orgId, [...due.map(eventOf), { kind: "watcher.resumed", actor, watcherId }]);
    return { watcher, due };
  });
  changed(surroundings, due);
  return watcher;
}

function refuseOrphan(watcher: Watcher): never {
  refuse(
    "failed_precondition",
    `the device of watcher "${watcher.slug}" was deleted; update its device_id first (empty: fleet workers take it)`,
  );
}

/**
 * Removes a watcher, with the event `watcher.deleted`. Its live run ends; ended runs stay. Refuses
 * with `not_found`.
 */
export async function remove(db: Db, options: Asked, surroundings: Surroundings): Promise<Cancellation> {
  const { orgId, actor } = options;
  const cancellation = await transaction(db, async (tx) => {
    const watcherId = await lockWithRuns(tx, options, { for: "removal" });
    const { slug, name, device_id: deviceId } = await watchers.get(tx, { orgId, watcher: watcherId });
    await watchers.remove(tx, { orgId, watcherId });
    const why = { reason: "the watcher was deleted" };
    const cancellation = await cancelOfWatcher(tx, { orgId, watcherId }, why, surroundings);
    const data = { slug, name };
    await events.append(tx, orgId, [{ kind: "watcher.deleted", actor, watcherId, deviceId, data }]);
    return cancellation;
  });
  announceAll(surroundings, [cancellation]);
  return cancellation;
}

/**
 * Locks the runs before the watcher, in the order of a completion, and before both the hooks that a
 * removal deletes, in the order of a delivery, so that no two of them can deadlock. Returns the
 * watcher's id.
 */
async function lockWithRuns(
  tx: Db,
  { orgId, watcher }: Asked,
  options: { for: "edit" | "removal" },
): Promise<string> {
  const { id } = await watchers.get(tx, { orgId, watcher });
  if (options.for === "removal") await hooks.lockOfWatcher(tx, { orgId, watcherId: id });
  const only = options.for === "edit" ? "ahead" : undefined;
  await liveRuns.lockWithWatchers(tx, { orgId, of: { watcherIds: [id] }, only, ...options });
  // Refuses a watcher that was removed meanwhile.
  return watchers.lock(tx, { orgId, watcher: id, ...options });
}

/** Announces the recorded slots and the moved schedule, after the commit. */
function changed({ doorbell, scheduleChanged }: Surroundings, due: readonly RecordedRun[]): void {
  if (due.length > 0) doorbell.recorded(due);
  scheduleChanged();
}

/** The named agent, or the org's default agent. Refuses with `not_found`. */
async function requireAgentId(tx: Db, options: { orgId: string; agentId: string }): Promise<string> {
  const { orgId } = options;
  if (options.agentId === "") {
    return (
      (await defaultAgents.findDefaultAgentId(tx, { orgId })) ??
      refuse("not_found", "the org has no default agent; name one in agent_id", { field: "spec.agent_id" })
    );
  }
  if (!(await agents.find(tx, options))) {
    refuse("not_found", `there is no agent "${options.agentId}"`, { field: "spec.agent_id" });
  }
  return options.agentId;
}

/** See pins.ts. */
function requireDevice(tx: Db, options: { orgId: string; deviceId: string }): Promise<void> {
  return pins.requirePinnable(tx, { ...options, field: "spec.device_id", workerIs: "failed_precondition" });
}
