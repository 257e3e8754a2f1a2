import { sql } from "kysely";
import { refuse } from "../../errors.ts";
import { isUuid, newId } from "../../ids.ts";
import * as agents from "../agents/agents.ts";
import { describe } from "../people/changes.ts";
import * as grants from "../people/grants.ts";
import * as orgs from "../people/orgs.ts";
import { requirePinnable } from "../people/pins.ts";
import * as requests from "../people/requests.ts";
import * as clock from "../pg/clock.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import { rehearsable } from "../pg/dry-run.ts";
import type { Catchup, Json, Notification, Overlap, WatcherRow } from "../pg/schema.ts";
import * as chains from "./chains.ts";
import * as events from "./events.ts";
import * as runs from "./runs.ts";

/** A watcher as it is read: its row, what it asks for at its version, and what waits or runs for it. */
export type Watcher = WatcherRow & {
  prompt: string;
  extraction_schema: Json | null;
  agent_work: Json;
  active_run_id: string | null;
  queued_slot_at: Date | null;
  has_agent: boolean;
  /** Slugs of the watchers whose ends start this one, in order. */
  after: string[];
};

/** What people decide about a watcher. Lengths in milliseconds. */
export type WatcherValues = {
  name: string;
  prompt: string;
  /** Empty: the org's default agent. */
  agentId: string;
  deviceId: string | null;
  agentKind: string;
  /** Null: manual only. */
  schedule: string | null;
  timeZone: string;
  overlap: Overlap;
  catchup: Catchup;
  catchupWindowMs: number;
  jitterMs: number;
  minCooldownMs: number;
  startDeadlineMs: number | null;
  timeoutMs: number;
  maxAttempts: number;
  notification: Notification;
  extractionSchema: Json | null;
  /** Workspace, budgets, questions and continue mode, as JSON of the fields of WatcherSpec; absent: not set. */
  agentWork: Json;
  /** Watchers whose ends start this one, by slug or id. */
  after: readonly string[];
};

/** Where a schedule stands: its next slot, and when that is due (the slot plus the jitter). Undefined: it has ended. */
export type Position = { nextSlotAt: Date; nextDueAt: Date } | undefined;

/** The position of a schedule after a moment. Pure; the maths of cron lives above the store. */
export type Place = (schedule: {
  watcherId: string;
  schedule: string;
  timeZone: string;
  jitterMs: number;
  after: Date;
}) => Position;

/**
 * Writes the slots of a watcher that are due by now, under the schedule as it stands, within the transaction (R2, R3).
 * Answers the events of that, which are appended with the caller's own, as the last statement.
 */
export type RecordDue = (
  tx: Db,
  orgId: string,
  watcherId: string,
) => Promise<readonly Omit<events.NewEvent, "orgId">[]>;

/** A watcher named by its id or its slug. */
type Named = { orgId: string; watcher: string };

function select(db: Db) {
  return db
    .selectFrom("watcher as w")
    .innerJoin("watcher_revision as v", (join) =>
      join
        .onRef("v.org_id", "=", "w.org_id")
        .onRef("v.watcher_id", "=", "w.id")
        .onRef("v.version", "=", "w.version"),
    )
    .selectAll("w")
    .select(["v.prompt", "v.extraction_schema", "v.agent_work"])
    .select((eb) => [
      eb
        .selectFrom("run as r")
        .select("r.id")
        .whereRef("r.org_id", "=", "w.org_id")
        .whereRef("r.watcher_id", "=", "w.id")
        .as("active_run_id"),
      eb
        .selectFrom("backlog as b")
        .select((b) => b.fn.max("b.scheduled_for").as("at"))
        .whereRef("b.org_id", "=", "w.org_id")
        .whereRef("b.watcher_id", "=", "w.id")
        .where("b.source", "=", "scheduled")
        .as("queued_slot_at"),
      eb
        .exists(
          eb
            .selectFrom("agent as a")
            .select("a.id")
            .whereRef("a.org_id", "=", "w.org_id")
            .whereRef("a.id", "=", "w.agent_id"),
        )
        .$castTo<boolean>()
        .as("has_agent"),
      sql<string[]>`array(
        select o.slug from watcher_after a join watcher o on o.org_id = a.org_id and o.id = a.after_id
        where a.org_id = w.org_id and a.watcher_id = w.id order by o.slug)`.as("after"),
    ]);
}

/** The watcher of that id or slug, if the org has it. */
export function find(db: Db, options: Named): Promise<Watcher | undefined> {
  return select(db)
    .where("w.org_id", "=", options.orgId)
    .where(isUuid(options.watcher) ? "w.id" : "w.slug", "=", options.watcher)
    .executeTakeFirst();
}

/** The watcher of that id or slug. Refuses with `not_found`, also for another org's. */
export async function get(db: Db, options: Named): Promise<Watcher> {
  return (await find(db, options)) ?? notFound(options.watcher);
}

function notFound(watcher: string): never {
  refuse("not_found", `there is no watcher "${watcher}"`);
}

/** The org's watchers by slug, at most `limit`: those after `afterSlug`, and those pinned to a device, where given. */
export function list(
  db: Db,
  options: { orgId: string; limit: number; afterSlug?: string | undefined; deviceId?: string | undefined },
): Promise<Watcher[]> {
  let query = select(db).where("w.org_id", "=", options.orgId).orderBy("w.slug").limit(options.limit);
  if (options.afterSlug !== undefined) query = query.where("w.slug", ">", options.afterSlug);
  if (options.deviceId !== undefined) query = query.where("w.device_id", "=", options.deviceId);
  return query.execute();
}

/**
 * A new watcher, with the event `watcher.created`. A repeat of a request id returns the watcher that the first one
 * made. Refuses with `already_exists` for a taken slug, and `not_found` for the agent or the device.
 */
export function create(
  db: Db,
  options: {
    orgId: string;
    actor: string;
    slug: string;
    requestId: string;
    values: WatcherValues;
    place: Place;
    /** Checks and answers as ever, and leaves nothing. */
    isDryRun?: boolean;
  },
): Promise<Watcher> {
  const { orgId, values } = options;
  const { actor, requestId } = options;
  const request = { orgId, actor, requestId, rpc: "WatcherService/CreateWatcher" };
  return rehearsable(db, options.isDryRun ?? false, async (tx) => {
    const made = await requests.begin(tx, request);
    if (made) return get(tx, { orgId, watcher: made.watcher_id });
    const resolved = { ...values, agentId: await requireAgentId(tx, { orgId, agentId: values.agentId }) };
    if (values.deviceId) await requireDevice(tx, { orgId, deviceId: values.deviceId });
    const id = newId();
    const inserted = await tx
      .insertInto("watcher")
      .values({
        org_id: orgId,
        id,
        slug: options.slug,
        sponsor: actor,
        ...columnsOf(resolved),
        ...positionOf({ watcherId: id, values, after: await clock.now(tx), place: options.place }),
      })
      // Whoever holds the slug may not have committed yet: this waits for it.
      .onConflict((conflict) => conflict.doNothing())
      .returning("id")
      .executeTakeFirst();
    if (!inserted) {
      refuse("already_exists", `a watcher with the slug "${options.slug}" exists already`, { field: "slug" });
    }
    await insertRevision(tx, { orgId, watcherId: id, version: 1, values });
    if (values.after.length > 0) await chains.follow(tx, { orgId, watcherId: id, after: values.after });
    await requests.record(tx, request, { watcher_id: id });
    const watcher = await get(tx, { orgId, watcher: id });
    await events.append(tx, orgId, [
      {
        kind: "watcher.created",
        actor: options.actor,
        watcherId: id,
        deviceId: values.deviceId,
        data: { slug: options.slug, version: 1 },
      },
    ]);
    return watcher;
  });
}

/**
 * Provisions a watcher within the caller's transaction, unless its slug is taken: then a person has made one of the same
 * name, and it stays. Returns the new watcher's id; its event is the caller's.
 */
export async function provision(
  tx: Db,
  options: {
    orgId: string;
    slug: string;
    name: string;
    prompt: string;
    agentId: string;
    deviceId: string;
    schedule: string;
    timeZone: string;
    nextSlotAt: Date;
  },
): Promise<string | undefined> {
  const inserted = await tx
    .insertInto("watcher")
    .values({
      org_id: options.orgId,
      slug: options.slug,
      name: options.name,
      agent_id: options.agentId,
      device_id: options.deviceId,
      schedule: options.schedule,
      time_zone: options.timeZone,
      next_slot_at: options.nextSlotAt,
      next_due_at: options.nextSlotAt,
    })
    .onConflict((conflict) => conflict.columns(["org_id", "slug"]).doNothing())
    .returning("id")
    .executeTakeFirst();
  if (!inserted) return undefined;
  await insertRevision(tx, {
    orgId: options.orgId,
    watcherId: inserted.id,
    version: 1,
    values: { name: options.name, prompt: options.prompt, extractionSchema: null, agentWork: {} },
  });
  return inserted.id;
}

/**
 * Edits a watcher, with the event `watcher.updated`. `change` is given the watcher and answers what it shall be; an edit
 * that changes nothing writes nothing. Slots that are due are recorded under the old schedule first; a changed schedule
 * starts anew from now. Refuses with `not_found` (watcher, agent, device) and `aborted` (`expectedVersion`).
 */
export function update(
  db: Db,
  options: Named & {
    actor: string;
    /** 0: whatever the version is. */
    expectedVersion: number;
    change: (current: Watcher) => WatcherValues;
    /** The caller decided on the pin, also if it is the same: that ends no_executor. */
    isPinDecided: boolean;
    recordDue: RecordDue;
    place: Place;
    /** Checks and answers as ever, and leaves nothing. */
    isDryRun?: boolean;
  },
): Promise<Watcher> {
  const { orgId } = options;
  return rehearsable(db, options.isDryRun ?? false, async (tx) => {
    const watcherId = await lock(tx, options);
    // Read before the due slots are recorded: a slot between the two moments is recorded under the old schedule, and
    // left alone (R2) if the new one comes upon it again.
    const after = await clock.now(tx);
    const due = await options.recordDue(tx, orgId, watcherId);
    const current = await get(tx, { orgId, watcher: watcherId });
    if (options.expectedVersion !== 0 && options.expectedVersion !== current.version) {
      refuse(
        "aborted",
        `the watcher is at version ${current.version}, not ${options.expectedVersion}; read it again`,
        { retryAfterMs: 0 },
      );
    }
    // The guard looked at the pin before this row was locked.
    if (current.device_id) await grants.requireStill(tx, { orgId, deviceId: current.device_id, deed: "use" });
    const before = valuesOf(current);
    const wanted = options.change(current);
    const isAfterNew = JSON.stringify(wanted.after) !== JSON.stringify(before.after);
    const values = {
      ...wanted,
      ...(wanted.agentId === before.agentId
        ? {}
        : { agentId: await requireAgentId(tx, { orgId, agentId: wanted.agentId }) }),
      ...(isAfterNew ? { after: await chains.follow(tx, { orgId, watcherId, after: wanted.after }) } : {}),
    };
    const { changed, changes } = describe(fieldsOf(before), fieldsOf(values));
    const isAdopted = current.status === "no_executor" && options.isPinDecided;
    if (changed.length === 0 && !isAdopted) {
      await events.append(tx, orgId, due);
      return current;
    }
    if (values.deviceId && changed.includes("device_id")) {
      await requireDevice(tx, { orgId, deviceId: values.deviceId });
    }

    const isScheduleNew = changed.includes("schedule") || changed.includes("time_zone");
    const startsAnew = current.status !== "paused" && (isScheduleNew || (isAdopted && !current.next_slot_at));
    const version = current.version + 1;
    await tx
      .updateTable("watcher")
      .set({
        ...columnsOf(values),
        sponsor: options.actor,
        version,
        updated_at: sql<Date>`now()`,
        ...(isAdopted ? { status: "active", paused_reason: "" } : {}),
        ...(startsAnew
          ? positionOf({ watcherId, values, after, place: options.place })
          : changed.includes("jitter") && values.schedule !== null && current.next_slot_at
            ? // The same slot, due at another moment: the place after the instant before it.
              positionOf({
                watcherId,
                values,
                after: new Date(current.next_slot_at.getTime() - 1),
                place: options.place,
              })
            : {}),
      })
      .where("org_id", "=", orgId)
      .where("id", "=", watcherId)
      .execute();
    await insertRevision(tx, { orgId, watcherId, version, values });
    const watcher = await get(tx, { orgId, watcher: watcherId });
    await events.append(tx, orgId, [
      ...due,
      {
        kind: "watcher.updated",
        actor: options.actor,
        watcherId,
        deviceId: values.deviceId,
        data: { version, changed, changes },
      },
    ]);
    return watcher;
  });
}

/**
 * Stops a watcher's schedule, with the event `watcher.paused`; slots that are due are recorded first, and a run that is not
 * due yet is ended by `cancelRuns`. A paused watcher stays as it is. Refuses with `not_found`, and `failed_precondition` for
 * one without an executor.
 */
export function pause(
  db: Db,
  options: Named & {
    reason: string;
    actor: string;
    recordDue: RecordDue;
    cancelRuns?: CancelRuns<void>;
  },
): Promise<Watcher> {
  const { orgId } = options;
  return transaction(db, async (tx) => {
    const found = await get(tx, options);
    // Runs before watchers, as a completion has it.
    await runs.lockForCancel(tx, { orgId, watcherId: found.id });
    const watcherId = await lock(tx, { orgId, watcher: found.id });
    const due = await options.recordDue(tx, orgId, watcherId);
    const current = await get(tx, { orgId, watcher: watcherId });
    if (current.status === "paused") {
      await events.append(tx, orgId, due);
      return current;
    }
    if (current.status === "no_executor") refuseOrphan(current);
    await tx
      .updateTable("watcher")
      .set({ status: "paused", paused_reason: options.reason, next_slot_at: null, next_due_at: null })
      .where("org_id", "=", orgId)
      .where("id", "=", watcherId)
      .execute();
    const watcher = await get(tx, { orgId, watcher: watcherId });
    await options.cancelRuns?.(tx, { orgId, watcherId, reason: "the watcher was paused" });
    await events.append(tx, orgId, [
      ...due,
      { kind: "watcher.paused", actor: options.actor, watcherId, data: { reason: options.reason } },
    ]);
    return watcher;
  });
}

/**
 * Starts a watcher's schedule again, from the next slot after now, and forgets its failures, with the event
 * `watcher.resumed`. One that is active and has none stays as it is. Refuses as {@link pause} does.
 */
export function resume(
  db: Db,
  options: Named & { actor: string; recordDue: RecordDue; place: Place },
): Promise<Watcher> {
  const { orgId } = options;
  return transaction(db, async (tx) => {
    const watcherId = await lock(tx, options);
    const after = await clock.now(tx);
    const due = await options.recordDue(tx, orgId, watcherId);
    const current = await get(tx, { orgId, watcher: watcherId });
    if (current.status === "no_executor") refuseOrphan(current);
    const hasFailures = current.consecutive_failures > 0 || current.backoff_until !== null;
    if (current.status === "active" && !hasFailures) {
      await events.append(tx, orgId, due);
      return current;
    }
    const values = valuesOf(current);
    await tx
      .updateTable("watcher")
      .set({
        status: "active",
        paused_reason: "",
        sponsor: options.actor,
        consecutive_failures: 0,
        backoff_until: null,
        ...(current.status === "paused"
          ? positionOf({ watcherId, values, after, place: options.place })
          : {}),
      })
      .where("org_id", "=", orgId)
      .where("id", "=", watcherId)
      .execute();
    const watcher = await get(tx, { orgId, watcher: watcherId });
    await events.append(tx, orgId, [...due, { kind: "watcher.resumed", actor: options.actor, watcherId }]);
    return watcher;
  });
}

function refuseOrphan(watcher: Watcher): never {
  refuse(
    "failed_precondition",
    `the device of watcher "${watcher.slug}" was deleted; update its device_id first (empty: fleet workers take it)`,
  );
}

/** Ends runs within the transaction, in which only events may follow. */
export type CancelRuns<Cancelled> = (
  tx: Db,
  options: { orgId: string; watcherId: string; reason: string },
) => Promise<Cancelled>;

/**
 * Removes a watcher, with the event `watcher.deleted`. Its live run is ended by `cancelRuns`, whose answer is returned;
 * what ended stays. Refuses with `not_found`.
 */
export function remove<Cancelled>(
  db: Db,
  options: Named & { actor: string; cancelRuns: CancelRuns<Cancelled> },
): Promise<Cancelled> {
  const { orgId } = options;
  return transaction(db, async (tx) => {
    const found = await get(tx, options);
    // Runs are locked before watchers, as a completion does, so that neither waits for the other.
    await runs.lockForCancel(tx, { orgId, watcherId: found.id });
    const watcherId = await lock(tx, { orgId, watcher: found.id });
    await tx.deleteFrom("watcher").where("org_id", "=", orgId).where("id", "=", watcherId).execute();
    const cancelled = await options.cancelRuns(tx, { orgId, watcherId, reason: "the watcher was deleted" });
    await events.append(tx, orgId, [
      {
        kind: "watcher.deleted",
        actor: options.actor,
        watcherId,
        deviceId: found.device_id,
        data: { slug: found.slug, name: found.name },
      },
    ]);
    return cancelled;
  });
}

/** Unpins all watchers of a device, as an edit of each; they show as no_executor. Returns their ids; events are the caller's. */
export async function unpinAll(
  tx: Db,
  options: { orgId: string; deviceId: string; reason: string },
): Promise<string[]> {
  const { rows } = await sql<{ watcher_id: string }>`
    with unpinned as (
      update watcher set device_id = null, status = 'no_executor', paused_reason = ${options.reason},
        version = version + 1, updated_at = now()
      where org_id = ${options.orgId} and device_id = ${options.deviceId}
      returning org_id, id, version
    )
    insert into watcher_revision (org_id, watcher_id, version, name, prompt, extraction_schema, agent_work)
    select u.org_id, u.id, u.version, v.name, v.prompt, v.extraction_schema, v.agent_work
    from unpinned u
      join watcher_revision v on v.org_id = u.org_id and v.watcher_id = u.id and v.version = u.version - 1
    returning watcher_id`.execute(tx);
  return rows.map((row) => row.watcher_id);
}

/** The watcher's values as they stand. */
export function valuesOf(watcher: Watcher): WatcherValues {
  return {
    name: watcher.name,
    prompt: watcher.prompt,
    agentId: watcher.agent_id,
    deviceId: watcher.device_id,
    agentKind: watcher.agent_kind,
    schedule: watcher.schedule,
    timeZone: watcher.time_zone,
    overlap: watcher.overlap,
    catchup: watcher.catchup,
    catchupWindowMs: watcher.catchup_window_ms,
    jitterMs: watcher.jitter_ms,
    minCooldownMs: watcher.min_cooldown_ms,
    startDeadlineMs: watcher.start_deadline_ms,
    timeoutMs: watcher.timeout_ms,
    maxAttempts: watcher.max_attempts,
    notification: watcher.notification,
    extractionSchema: watcher.extraction_schema,
    agentWork: watcher.agent_work,
    after: watcher.after,
  };
}

function columnsOf(values: WatcherValues) {
  return {
    name: values.name,
    agent_id: values.agentId,
    device_id: values.deviceId,
    agent_kind: values.agentKind,
    schedule: values.schedule,
    time_zone: values.timeZone,
    overlap: values.overlap,
    catchup: values.catchup,
    catchup_window_ms: values.catchupWindowMs,
    jitter_ms: values.jitterMs,
    min_cooldown_ms: values.minCooldownMs,
    start_deadline_ms: values.startDeadlineMs,
    timeout_ms: values.timeoutMs,
    max_attempts: values.maxAttempts,
    notification: values.notification,
    day_budget: budgetOf(values),
  };
}

function budgetOf({ agentWork }: WatcherValues): string | null {
  const { dayBudget } = agentWork as { dayBudget?: Json };
  return dayBudget && Object.keys(dayBudget).length > 0 ? JSON.stringify(dayBudget) : null;
}

/** Proto names of the fields, so that events speak as the API does. */
const fieldNames: Record<Exclude<keyof WatcherValues, "agentWork">, string> = {
  name: "name",
  prompt: "prompt",
  agentId: "agent_id",
  deviceId: "device_id",
  agentKind: "agent_kind",
  schedule: "schedule",
  timeZone: "time_zone",
  overlap: "overlap",
  catchup: "catchup",
  catchupWindowMs: "catchup_window",
  jitterMs: "jitter",
  minCooldownMs: "min_cooldown",
  startDeadlineMs: "start_deadline",
  timeoutMs: "timeout",
  maxAttempts: "max_attempts",
  notification: "notification",
  extractionSchema: "extraction_schema",
  after: "after",
};

function fieldsOf(values: WatcherValues): Record<string, unknown> {
  const decided = Object.fromEntries(
    (Object.keys(fieldNames) as (keyof typeof fieldNames)[]).map((key) => [fieldNames[key], values[key]]),
  );
  const work = values.agentWork as Record<string, unknown>;
  return {
    ...decided,
    ...Object.fromEntries(agentWorkFields.map(([key, name]) => [name, work[key] ?? null])),
  };
}

/** The fields of {@link WatcherValues.agentWork}, with their names in the proto. */
const agentWorkFields: [key: string, name: string][] = [
  ["workspace", "workspace"],
  ["runBudget", "run_budget"],
  ["dayBudget", "day_budget"],
  ["questions", "questions"],
  ["continueMode", "continue_mode"],
  ["afterCondition", "after_condition"],
  ["redact", "redact"],
];

function positionOf(options: { watcherId: string; values: WatcherValues; after: Date; place: Place }) {
  const { schedule, timeZone, jitterMs } = options.values;
  const position =
    schedule === null
      ? undefined
      : options.place({ watcherId: options.watcherId, schedule, timeZone, jitterMs, after: options.after });
  return { next_slot_at: position?.nextSlotAt ?? null, next_due_at: position?.nextDueAt ?? null };
}

async function insertRevision(
  tx: Db,
  options: {
    orgId: string;
    watcherId: string;
    version: number;
    values: Pick<WatcherValues, "name" | "prompt" | "extractionSchema" | "agentWork">;
  },
): Promise<void> {
  await tx
    .insertInto("watcher_revision")
    .values({
      org_id: options.orgId,
      watcher_id: options.watcherId,
      version: options.version,
      name: options.values.name,
      prompt: options.values.prompt,
      extraction_schema: options.values.extractionSchema && JSON.stringify(options.values.extractionSchema),
      agent_work: JSON.stringify(options.values.agentWork),
    })
    .execute();
}

/** Locks the watcher's row alone: under a join, a row that changed while we waited would drop out. Returns its id. */
async function lock(tx: Db, options: Named): Promise<string> {
  const row = await tx
    .selectFrom("watcher")
    .select("id")
    .where("org_id", "=", options.orgId)
    .where(isUuid(options.watcher) ? "id" : "slug", "=", options.watcher)
    .forUpdate()
    .executeTakeFirst();
  return row?.id ?? notFound(options.watcher);
}

/** The named agent, or the org's default one. Refuses with `not_found`. */
async function requireAgentId(tx: Db, options: { orgId: string; agentId: string }): Promise<string> {
  const { orgId } = options;
  if (options.agentId === "") {
    return (
      (await orgs.findDefaultAgentId(tx, { orgId })) ??
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
  return requirePinnable(tx, { ...options, field: "spec.device_id", workerIs: "failed_precondition" });
}
