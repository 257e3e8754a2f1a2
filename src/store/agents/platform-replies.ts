/**
 * Replies owed to chats of platforms. A reply is owed from the transaction that records its turn,
 * and written to by the holder of the platform's lease alone (P5).
 */
import { sql } from "kysely";
import type { Db } from "../pg/database.ts";
import { storableText } from "../pg/values/storable.ts";
import { unnest } from "../pg/values/unnest.ts";
import { isOwn, type Lease, leaseColumns } from "./platform-leases.ts";
import type { Named } from "./platforms.ts";

export type OwedReply = Named & {
  turnId: string;
  threadId: string;
  chatId: string;
  senderId: string;
  /** The message that holds the reply; null: none is posted yet. */
  postId: string | null;
  /** Messages of a long reply that are complete. */
  partsSent: number;
  attempts: number;
  createdAt: Date;
};

/** In the transaction that records the turn. */
export async function owe(
  tx: Db,
  reply: Named & Pick<OwedReply, "turnId" | "threadId" | "chatId" | "senderId">,
): Promise<void> {
  await sql`
    insert into platform_reply (org_id, turn_id, stable_id, thread_id, chat_id, sender_id)
    values (${reply.orgId}, ${reply.turnId}, ${reply.stableId}, ${storableText(reply.threadId)},
      ${storableText(reply.chatId)}, ${storableText(reply.senderId)})`.execute(tx);
}

const columns = sql`
  r.org_id as "orgId", r.stable_id as "stableId", r.turn_id as "turnId", r.thread_id as "threadId",
  r.chat_id as "chatId", r.sender_id as "senderId", r.post_id as "postId", r.parts_sent as "partsSent", r.attempts,
  r.created_at as "createdAt"`;

/**
 * Open replies of the leased platforms that are due, the oldest first, without the ones at work.
 */
export async function listDue(
  db: Db,
  options: { leases: readonly Lease[]; atWork: readonly string[]; limit: number },
): Promise<OwedReply[]> {
  if (options.leases.length === 0 || options.limit <= 0) return [];
  const { rows } = await sql<OwedReply>`
    select ${columns}
    from ${unnest("l", options.leases, leaseColumns)} join platform_reply r on r.org_id = l.org_id and r.stable_id = l.stable_id
    where r.state = 'open' and r.next_at <= now() and r.turn_id <> all(${options.atWork as string[]}::uuid[])
    order by r.turn_id
    limit ${options.limit}`.execute(db);
  return rows;
}

/**
 * Milliseconds until the next open reply of the platforms is due; undefined for none that waits.
 */
export async function findNextDueMs(db: Db, leases: readonly Lease[]): Promise<number | undefined> {
  if (leases.length === 0) return undefined;
  const { rows } = await sql<{ ms: number | null }>`
    select extract(epoch from min(r.next_at) - now()) * 1000 as ms
    from ${unnest("l", leases, leaseColumns)} join platform_reply r on r.org_id = l.org_id and r.stable_id = l.stable_id
    where r.state = 'open' and r.next_at > now()`.execute(db);
  return rows[0]?.ms ?? undefined;
}

type Change = { lease: Lease; turnId: string };

/** Whether the change was made: false without the lease, and for a reply that is no longer open. */
async function change(db: Db, { lease, turnId }: Change, set: ReturnType<typeof sql>): Promise<boolean> {
  const { rows } = await sql`
    update platform_reply set ${set}
    where org_id = ${lease.orgId} and turn_id = ${turnId} and state = 'open' and ${isOwn(lease)}
    returning 1`.execute(db);
  return rows.length > 0;
}

/** The message that holds the reply; null: a new one is to be posted. */
export const savePost = (db: Db, which: Change, postId: string | null) =>
  change(db, which, sql`post_id = ${postId}`);

export const saveParts = (db: Db, which: Change, partsSent: number) =>
  change(db, which, sql`parts_sent = ${partsSent}, attempts = 0`);

export const finish = (db: Db, which: Change) =>
  change(db, which, sql`state = 'sent', ended_at = now(), last_error = ''`);

/** A failed try; `retryInMs` undefined: the last one. */
export const fail = (db: Db, which: Change, { error, retryInMs }: { error: string; retryInMs?: number }) =>
  change(
    db,
    which,
    retryInMs === undefined
      ? sql`state = 'dead', ended_at = now(), last_error = ${storableText(error)}`
      : sql`attempts = attempts + 1, last_error = ${storableText(error)},
          next_at = now() + ${retryInMs} * interval '1 ms'`,
  );
