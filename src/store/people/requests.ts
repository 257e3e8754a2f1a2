/**
 * Idempotency of writes that create: a caller's `request_id` stands for one write of an rpc, for a day. The row is written
 * in the write's own transaction, so a repeat that comes while the first is under way waits for its commit, and one that
 * failed has left nothing.
 *
 * What is kept is what a repeat has to know (ids), never a secret: a secret that was shown is not shown again.
 */
import { sql } from "kysely";
import type { Db } from "../pg/database.ts";
import type { Json } from "../pg/schema.ts";

/** A repeat within this time makes nothing. */
export const repeatMs = 86_400_000;

export type Request = {
  orgId: string;
  /** Whose request it is, as in events. */
  actor: string;
  /** "WatcherService/TriggerWatcher". */
  rpc: string;
  /** Chosen by the caller; empty: none, and every call is a new one. */
  requestId: string;
};

/**
 * What the request made when it came first; undefined if it comes first now, and then {@link record} is to be called in the
 * same transaction. To be called before anything is locked that another repeat might hold.
 */
export async function begin(tx: Db, request: Request): Promise<Json | undefined> {
  if (request.requestId === "") return undefined;
  const { orgId, actor, rpc, requestId } = request;
  // A row of more than a day ago is taken over; whoever has written one and not committed is waited for.
  const { rows } = await sql`
    insert into request (org_id, actor, rpc, id) values (${orgId}, ${actor}, ${rpc}, ${requestId})
    on conflict (org_id, actor, rpc, id) do update set made = null, created_at = now()
      where request.created_at < now() - ${repeatMs} * interval '1 millisecond'
    returning 1`.execute(tx);
  if (rows.length > 0) return undefined;
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

/** Notes what the request made. To be called before the events are appended. */
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
