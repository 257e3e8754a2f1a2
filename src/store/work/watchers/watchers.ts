import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import { isUuid } from "../../../values/ids.ts";
import type { Db } from "../../pg/database.ts";
import type { Json } from "../../pg/schema/schema-columns.ts";
import type { SchedulePositionRow, WatcherRow } from "../../pg/schema/schema-work.ts";
import { type DeviceOffers, offersOfWatcher } from "./device-offers.ts";
import { columnsOf, type WatcherValues } from "./watcher-values.ts";

/**
 * A watcher as read: its row, the position of its schedule, the values of its version, and its
 * waiting and running work.
 */
export type Watcher = WatcherRow & {
  next_slot_at: SchedulePositionRow["next_slot_at"];
  next_due_at: SchedulePositionRow["next_due_at"];
  unrunnable_slots: SchedulePositionRow["unrunnable_slots"];
  prompt: string;
  extraction_schema: Json | null;
  agent_work: Json;
  active_run_id: string | null;
  queued_slot_at: Date | null;
  has_agent: boolean;
  /** Slugs of the watchers whose ends start the watcher, in order. */
  after: string[];
  /** The watcher's requirements of its device; null: none. */
  offers: DeviceOffers | null;
};

/**
 * The position of a schedule: its next slot, and the slot's due time (the slot plus the jitter).
 * Undefined: no next slot.
 */
type Position = { nextSlotAt: Date; nextDueAt: Date } | undefined;

/** A watcher by id or slug. */
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
    .innerJoin("schedule_position as s", (join) =>
      join.onRef("s.org_id", "=", "w.org_id").onRef("s.watcher_id", "=", "w.id"),
    )
    .selectAll("w")
    .select(["s.next_slot_at", "s.next_due_at", "s.unrunnable_slots"])
    .select(["v.prompt", "v.extraction_schema", "v.agent_work"])
    .select((eb) => [
      eb
        .selectFrom("run as r")
        .select("r.id")
        .whereRef("r.org_id", "=", "w.org_id")
        .whereRef("r.watcher_id", "=", "w.id")
        // For a watcher spread over devices, the oldest run.
        .orderBy("r.id")
        .limit(1)
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
      offersOfWatcher.as("offers"),
    ]);
}

/** The watcher by id or slug; undefined if the org has no such watcher. */
export function find(db: Db, options: Named): Promise<Watcher | undefined> {
  return select(db)
    .where("w.org_id", "=", options.orgId)
    .where(isUuid(options.watcher) ? "w.id" : "w.slug", "=", options.watcher)
    .executeTakeFirst();
}

/** The watcher by id or slug. Refuses with `not_found`, also for another org's watcher. */
export async function get(db: Db, options: Named): Promise<Watcher> {
  return (await find(db, options)) ?? notFound(options.watcher);
}

function notFound(watcher: string): never {
  refuse("not_found", `there is no watcher "${watcher}"`);
}

/**
 * The org's watchers by slug, at most `limit`; after `afterSlug`, and pinned to `deviceId`, each if
 * given.
 */
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
 * Writes a new watcher and its first revision; false if its slug is used. Waits for a concurrent
 * writer of the same slug.
 */
export async function insert(
  tx: Db,
  options: {
    orgId: string;
    watcherId: string;
    slug: string;
    sponsor: string;
    values: WatcherValues;
    position: Position;
  },
): Promise<boolean> {
  const { orgId, watcherId, slug, sponsor, values } = options;
  const inserted = await tx
    .insertInto("watcher")
    .values({
      ...{ org_id: orgId, id: watcherId, slug, sponsor },
      ...columnsOf(values),
    })
    .onConflict((conflict) => conflict.doNothing())
    .returning("id")
    .executeTakeFirst();
  if (!inserted) return false;
  await insertPosition(tx, { orgId, watcherId, position: options.position });
  await insertRevision(tx, { orgId, watcherId, version: 1, values });
  return true;
}

/**
 * Provisions a watcher in the caller's transaction. A used slug means a person's watcher of the
 * same name, which stays unchanged. Returns the new watcher's id; the caller appends the event.
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
  const { orgId, slug, name, prompt, agentId, deviceId, schedule, timeZone, nextSlotAt } = options;
  const inserted = await tx
    .insertInto("watcher")
    .values({
      ...{ org_id: orgId, slug, name, schedule },
      ...{ agent_id: agentId, device_id: deviceId, time_zone: timeZone },
    })
    .onConflict((conflict) => conflict.columns(["org_id", "slug"]).doNothing())
    .returning("id")
    .executeTakeFirst();
  if (!inserted) return undefined;
  const watcherId = inserted.id;
  await insertPosition(tx, { orgId, watcherId, position: { nextSlotAt, nextDueAt: nextSlotAt } });
  const values = { name, prompt, extractionSchema: null, agentWork: {} };
  await insertRevision(tx, { orgId, watcherId, version: 1, values });
  return watcherId;
}

/**
 * Writes a locked watcher's values as the version. Without `position`, the schedule's position is
 * unchanged.
 */
export async function write(
  tx: Db,
  options: {
    orgId: string;
    watcherId: string;
    version: number;
    values: WatcherValues;
    sponsor: string;
    /** Ends no_executor. */
    isAdopted: boolean;
    position?: Position;
  },
): Promise<void> {
  const { orgId, watcherId, version, values, sponsor } = options;
  await tx
    .updateTable("watcher")
    .set({
      ...columnsOf(values),
      ...{ sponsor, version, updated_at: sql<Date>`now()` },
      ...(options.isAdopted ? { status: "active", paused_reason: "" } : {}),
    })
    .where("org_id", "=", orgId)
    .where("id", "=", watcherId)
    .execute();
  if ("position" in options) await writePosition(tx, { orgId, watcherId, position: options.position });
  await insertRevision(tx, { orgId, watcherId, version, values });
}

/** Stops a locked watcher's schedule. */
export async function setPaused(
  tx: Db,
  { orgId, watcherId, reason }: { orgId: string; watcherId: string; reason: string },
): Promise<void> {
  await tx
    .updateTable("watcher")
    .set({ status: "paused", paused_reason: reason })
    .where("org_id", "=", orgId)
    .where("id", "=", watcherId)
    .execute();
  await writePosition(tx, { orgId, watcherId, position: undefined });
}

/**
 * Makes a locked watcher active and resets its failures. Without `position`, the schedule's
 * position is unchanged.
 */
export async function setActive(
  tx: Db,
  options: { orgId: string; watcherId: string; sponsor: string; position?: Position },
): Promise<void> {
  await tx
    .updateTable("watcher")
    .set({
      ...{ status: "active", paused_reason: "", sponsor: options.sponsor },
      ...{ consecutive_failures: 0, backoff_until: null },
    })
    .where("org_id", "=", options.orgId)
    .where("id", "=", options.watcherId)
    .execute();
  const { orgId, watcherId } = options;
  if ("position" in options) await writePosition(tx, { orgId, watcherId, position: options.position });
}

/** Deletes a locked watcher with its revisions. */
export async function remove(
  tx: Db,
  { orgId, watcherId }: { orgId: string; watcherId: string },
): Promise<void> {
  await tx.deleteFrom("watcher").where("org_id", "=", orgId).where("id", "=", watcherId).execute();
}

/**
 * Unpins all watchers of a device, as an edit of each; they show as no_executor. Returns their ids;
 * events are the caller's.
 */
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

type Positioned = { orgId: string; watcherId: string; position: Position };

function positionColumns(position: Position) {
  return { next_slot_at: position?.nextSlotAt ?? null, next_due_at: position?.nextDueAt ?? null };
}

async function insertPosition(tx: Db, { orgId, watcherId, position }: Positioned): Promise<void> {
  await tx
    .insertInto("schedule_position")
    .values({ org_id: orgId, watcher_id: watcherId, ...positionColumns(position) })
    .execute();
}

/** Writes the position of a locked watcher's schedule. */
async function writePosition(tx: Db, { orgId, watcherId, position }: Positioned): Promise<void> {
  await tx
    .updateTable("schedule_position")
    .set(positionColumns(position))
    .where("org_id", "=", orgId)
    .where("watcher_id", "=", watcherId)
    .execute();
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

/**
 * Locks the watcher's row alone: with a join, a row that changed during the wait would be missing.
 * Returns its id. Refuses with `not_found`.
 *
 * `"edit"` leaves room for rows that refer to the watcher: an edit that makes another watcher
 * follow this watcher does not wait for an edit of this watcher, so the two edits cannot deadlock.
 * `"reference"` keeps the watcher from being removed, for a row that is about to refer to it.
 */
export async function lock(
  tx: Db,
  options: Named & { for: "reference" | "edit" | "removal" },
): Promise<string> {
  const named = tx
    .selectFrom("watcher")
    .select("id")
    .where("org_id", "=", options.orgId)
    .where(isUuid(options.watcher) ? "id" : "slug", "=", options.watcher);
  const locked = { reference: named.forKeyShare(), edit: named.forNoKeyUpdate(), removal: named.forUpdate() };
  const row = await locked[options.for].executeTakeFirst();
  return row?.id ?? notFound(options.watcher);
}
