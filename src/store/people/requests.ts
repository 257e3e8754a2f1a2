/**
 * Idempotency of creating writes: a caller's `request_id` identifies one write of an rpc, for a
 * day. The row is written in the write's own transaction, so a concurrent repeat waits for the
 * commit, and a failed write has left no row.
 *
 * The row stores the ids that a repeat needs, never a secret: a secret is shown only once.
 */
import { type RawBuilder, sql } from "kysely";
import type { Db } from "../pg/database.ts";
import { inCompany } from "../pg/round-trips.ts";
import type { Json } from "../pg/schema/schema-columns.ts";
import { ofFew } from "../pg/values/unnest.ts";

/** Milliseconds within which a repeat creates nothing. */
export const repeatMs = 86_400_000;

export type Request = {
  orgId: string;
  /** The actor of the request, as in events. */
  actor: string;
  /** "WatcherService/TriggerWatcher". */
  rpc: string;
  /** Chosen by the caller; empty: none, and every call is a new request. */
  requestId: string;
  /**
   * The name of the run that the request starts. If the run came back from its device although the
   * database had forgotten the request, the run is the request's result.
   */
  startName?: string;
};

/** The place of starts that came back from devices (restored-starts.ts); no rpc has the name. */
export const restoredStarts = { actor: "pinion", rpc: "restored start" } as const;

/**
 * The result of the request's first call; undefined if the current call is the first, and then the
 * caller calls {@link record} in the same transaction. To be called before any lock that another
 * repeat might hold.
 */
export async function begin(tx: Db, request: Request): Promise<Json | undefined> {
  if (request.requestId === "") return undefined;
  await note(tx, request);
  return findMade(tx, request);
}

/**
 * Like {@link begin}, but the result is read by a later statement: with {@link madeOf}, or by
 * {@link findMade}.
 */
export async function note(tx: Db, request: Request): Promise<void> {
  const { orgId, actor, rpc, requestId } = request;
  if (requestId === "") return;
  // A row older than a day is reused; an uncommitted row of another transaction is waited for.
  await sql`${inCompany}${ofFew}
    insert into request (org_id, actor, rpc, id) values (${orgId}, ${actor}, ${rpc}, ${requestId})
    on conflict (org_id, actor, rpc, id) do update set made = null, created_at = now()
      where request.created_at < now() - ${repeatMs} * interval '1 millisecond'`.execute(tx);
}

/**
 * The result of the first call as an expression; null: the current call is the first, or has no id.
 */
export function madeOf({ orgId, actor, rpc, requestId, startName }: Request): RawBuilder<Json | null> {
  const made = sql`(select made from request
      where org_id = ${orgId} and actor = ${actor} and rpc = ${rpc} and id = ${requestId})`;
  if (startName === undefined) return made as RawBuilder<Json | null>;
  return sql`coalesce(${made}, ${madeOf({ orgId, ...restoredStarts, requestId: startName })})`;
}

export async function findMade(tx: Db, request: Request): Promise<Json | undefined> {
  const { rows } = await sql<{ made: Json | null }>`${ofFew} select ${madeOf(request)} as made`.execute(tx);
  return rows[0]?.made ?? undefined;
}

/** Records the result of the request. To be called before the events are appended. */
export async function record(tx: Db, request: Request, made: Json): Promise<void> {
  if (request.requestId === "") return;
  const { orgId, actor, rpc, requestId } = request;
  await sql`${inCompany}${ofFew}
    update request set made = ${JSON.stringify(made)}::jsonb
    where org_id = ${orgId} and actor = ${actor} and rpc = ${rpc} and id = ${requestId}`.execute(tx);
}
