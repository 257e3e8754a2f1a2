/**
 * Idempotency of creating writes: a caller's `request_id` identifies one write of an rpc, for a
 * day. The row is written in the write's own transaction, so a concurrent repeat waits for the
 * commit, and a failed write has left no row.
 *
 * The row stores the ids that a repeat needs, never a secret: a secret is shown only once.
 */
import { sql } from "kysely";
import type { Db } from "../pg/database.ts";
import type { Json } from "../pg/schema-columns.ts";

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
};

/** The place of starts that came back from devices (restored-starts.ts); no rpc has the name. */
export const restoredStarts = { actor: "pinion", rpc: "restored start" } as const;

/**
 * The result of the request's first call; undefined if the current call is the first, and then the
 * caller calls {@link record} in the same transaction. To be called before any lock that another
 * repeat might hold. `startName`: the name of the run that the request starts; if the run came back
 * from its device although the database had forgotten the request, the run is the result.
 */
export async function begin(
  tx: Db,
  request: Request,
  { startName = "" }: { startName?: string } = {},
): Promise<Json | undefined> {
  if (request.requestId === "") return undefined;
  const { orgId, actor, rpc, requestId } = request;
  // A row older than a day is reused; an uncommitted row of another transaction is waited for.
  const { rows } = await sql<{ restored: Json | null }>`
    insert into request (org_id, actor, rpc, id) values (${orgId}, ${actor}, ${rpc}, ${requestId})
    on conflict (org_id, actor, rpc, id) do update set made = null, created_at = now()
      where request.created_at < now() - ${repeatMs} * interval '1 millisecond'
    returning (select made from request s where s.org_id = ${orgId} and s.actor = ${restoredStarts.actor}
      and s.rpc = ${restoredStarts.rpc} and s.id = ${startName}) as restored`.execute(tx);
  const [first] = rows;
  if (first?.restored) await record(tx, request, first.restored);
  if (first) return first.restored ?? undefined;
  const row = await tx
    .selectFrom("request")
    .select("made")
    .where("org_id", "=", orgId)
    .where("actor", "=", actor)
    .where("rpc", "=", rpc)
    .where("id", "=", requestId)
    .executeTakeFirstOrThrow();
  return row.made ?? {};
}

/** Records the result of the request. To be called before the events are appended. */
export async function record(tx: Db, request: Request, made: Json): Promise<void> {
  if (request.requestId === "") return;
  await tx
    .updateTable("request")
    .set({ made: JSON.stringify(made) })
    .where("org_id", "=", request.orgId)
    .where("actor", "=", request.actor)
    .where("rpc", "=", request.rpc)
    .where("id", "=", request.requestId)
    .execute();
}
