/** Rows of agents' chat platforms; platform-starts.ts has the states of starts. */
import { sql } from "kysely";
import { refuse } from "../../errors.ts";
import type { WantedSecret } from "../../secrets.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import type { Json } from "../pg/schema/schema-columns.ts";
import type { PlatformRow } from "../pg/schema/schema-work.ts";
import * as events from "../work/service/events.ts";

/** A platform as read. A start beyond its deadline shows as failed (P2). */
export type Platform = Omit<PlatformRow, "start_deadline_at" | "secret_marks">;

export type Named = { orgId: string; stableId: string };

/** The settings of a platform chosen by people. */
export type PlatformValues = {
  agentId: string;
  kind: string;
  config: Record<string, string>;
  secrets: Record<string, WantedSecret>;
};

/** Milliseconds after which a start is given up because its replica died; longer than any start. */
export const startDeadlineMs = 25_000;

const overdueReason = "the start did not end in time; the replica that made it may be gone";

export function select(db: Db, orgId: string) {
  return selectAll(db).where("org_id", "=", orgId);
}

function selectAll(db: Db) {
  const isOverdue = sql<boolean>`(status = 'starting' and start_deadline_at < clock_timestamp())`;
  return db
    .selectFrom("platform")
    .select(["org_id", "stable_id", "agent_id", "kind", "config", "secrets", "version", "epoch"])
    .select(["created_at", "updated_at"])
    .select([
      sql<PlatformRow["status"]>`case when ${isOverdue} then 'failed' else status end`.as("status"),
      sql<string>`case when ${isOverdue} then ${overdueReason} else status_reason end`.as("status_reason"),
    ]);
}

/** The platform; undefined if the org has no such platform. */
export function find(db: Db, options: Named): Promise<Platform | undefined> {
  return select(db, options.orgId).where("stable_id", "=", options.stableId).executeTakeFirst();
}

/** The platforms of any orgs, in the order of their names. Only for a db across orgs. */
export async function findEach(db: Db, named: readonly Named[]): Promise<(Platform | undefined)[]> {
  const orgIds = sql`${named.map(({ orgId }) => orgId)}::text[]`;
  const stableIds = sql`${named.map(({ stableId }) => stableId)}::text[]`;
  const rows = await selectAll(db)
    .where(sql<boolean>`(org_id, stable_id) in (select * from unnest(${orgIds}, ${stableIds}))`)
    .execute();
  const found = new Map(rows.map((row) => [`${row.org_id} ${row.stable_id}`, row]));
  return named.map(({ orgId, stableId }) => found.get(`${orgId} ${stableId}`));
}

/**
 * The org's platforms by stable id, at most `limit`; after `afterId`, and of `agentId`, each if
 * given.
 */
export function list(
  db: Db,
  options: {
    orgId: string;
    limit: number;
    afterId?: string | undefined;
    agentId?: string | undefined;
  },
): Promise<Platform[]> {
  let query = select(db, options.orgId).orderBy("stable_id").limit(options.limit);
  if (options.afterId !== undefined) query = query.where("stable_id", ">", options.afterId);
  if (options.agentId !== undefined) query = query.where("agent_id", "=", options.agentId);
  return query.execute();
}

/** Rows by stable id. Locked in one order, so that two batches cannot deadlock. */
export async function findAll(
  tx: Db,
  options: { orgId: string; stableIds: readonly string[]; isLocked?: boolean },
): Promise<Map<string, Platform>> {
  if (options.stableIds.length === 0) return new Map();
  const query = select(tx, options.orgId)
    .where(sql<boolean>`stable_id = any(${options.stableIds}::text[])`)
    .orderBy("stable_id");
  const rows = await (options.isLocked ? query.forUpdate() : query).execute();
  return new Map(rows.map((row) => [row.stable_id, row]));
}

export const deadline = sql<Date>`clock_timestamp() + ${startDeadlineMs} * interval '1 millisecond'`;

/** Grows, and stays ahead of the clock from which a new row takes its epoch (P3). */
export const nextEpoch = sql<number>`greatest(epoch + 1, (extract(epoch from clock_timestamp()) * 1000)::bigint)`;

export function named(platform: Pick<Platform, "stable_id" | "agent_id">): Json {
  return { platform_id: platform.stable_id, agent_id: platform.agent_id };
}

/**
 * Removes a platform, with the event `platform.deleted`, and returns it for stopping. Refuses with
 * `not_found`.
 */
export function remove(db: Db, options: Named & { actor: string }): Promise<Platform> {
  return transaction(db, async (tx) => {
    const current = (await lock(tx, options)) ?? notFound(options.stableId);
    await tx
      .deleteFrom("platform")
      .where("org_id", "=", options.orgId)
      .where("stable_id", "=", options.stableId)
      .execute();
    await events.append(tx, options.orgId, [deletedEvent(current, options.actor)]);
    return current;
  });
}

/**
 * Removes all platforms of an agent and returns them, to be stopped; the events are the caller's.
 */
export async function removeAllOfAgent(
  tx: Db,
  options: { orgId: string; agentId: string },
): Promise<Platform[]> {
  const found = await select(tx, options.orgId)
    .where("agent_id", "=", options.agentId)
    .orderBy("stable_id")
    .forUpdate()
    .execute();
  await tx
    .deleteFrom("platform")
    .where("org_id", "=", options.orgId)
    .where("agent_id", "=", options.agentId)
    .execute();
  return found;
}

export function deletedEvent(platform: Platform, actor: string): Omit<events.NewEvent, "orgId"> {
  return { kind: "platform.deleted", actor, data: { ...named(platform), kind: platform.kind } };
}

export function notFound(stableId: string): never {
  refuse("not_found", `there is no platform "${stableId}"`);
}

export function lock(tx: Db, options: Named): Promise<Platform | undefined> {
  return select(tx, options.orgId).where("stable_id", "=", options.stableId).forUpdate().executeTakeFirst();
}
