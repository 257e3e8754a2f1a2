/** Questions of agents that are shown on a platform, by the holder of its lease (P5). */
import { sql } from "kysely";
import type { Db } from "../pg/database.ts";
import { storableText } from "../pg/values/storable.ts";
import { isOwn, type Lease } from "./platform-leases.ts";
import type { Named } from "./platforms.ts";

export type ShownQuestion = {
  ref: string;
  turnId: string;
  attemptToken: string;
  questionId: string;
  senderId: string;
  threadId: string;
  postId: string | null;
  isClosed: boolean;
};

const columns = sql`
  q.ref, q.turn_id as "turnId", q.attempt_token as "attemptToken", q.question_id as "questionId",
  q.sender_id as "senderId", q.thread_id as "threadId", q.post_id as "postId", q.is_closed as "isClosed"`;

/** Questions of the turn that are shown, or are about to be. */
export async function listOfTurn(db: Db, which: { orgId: string; turnId: string }): Promise<ShownQuestion[]> {
  const { rows } = await sql<ShownQuestion>`
    select ${columns} from platform_question q
    where q.org_id = ${which.orgId} and q.turn_id = ${which.turnId}`.execute(db);
  return rows;
}

/** The question of a button's reference. */
export async function find(db: Db, which: Named & { ref: string }): Promise<ShownQuestion | undefined> {
  const { rows } = await sql<ShownQuestion>`
    select ${columns} from platform_question q
    where q.org_id = ${which.orgId} and q.stable_id = ${which.stableId} and q.ref = ${storableText(which.ref)}
  `.execute(db);
  return rows[0];
}

/** Stores that a question is about to be shown; false without the lease. */
export async function begin(
  db: Db,
  lease: Lease,
  shown: Omit<ShownQuestion, "postId" | "isClosed">,
): Promise<boolean> {
  const { rows } = await sql`
    insert into platform_question (org_id, ref, stable_id, turn_id, attempt_token, question_id, sender_id, thread_id)
    select ${lease.orgId}, ${shown.ref}, ${lease.stableId}, ${shown.turnId}, ${shown.attemptToken},
      ${storableText(shown.questionId)}, ${storableText(shown.senderId)}, ${storableText(shown.threadId)}
    where ${isOwn(lease)}
    on conflict do nothing
    returning 1`.execute(db);
  return rows.length > 0;
}

export async function savePost(db: Db, lease: Lease, { ref, postId }: { ref: string; postId: string }) {
  await sql`update platform_question set post_id = ${storableText(postId)}
    where org_id = ${lease.orgId} and ref = ${ref} and ${isOwn(lease)}`.execute(db);
}

export async function close(db: Db, lease: Lease, { ref }: { ref: string }): Promise<void> {
  await sql`update platform_question set is_closed = true
    where org_id = ${lease.orgId} and ref = ${ref} and ${isOwn(lease)}`.execute(db);
}

type Place = { threadId: string; senderId: string; messageId: string };

/**
 * The question that a message may answer: the oldest one shown to its sender in its thread that has
 * not ended, or the one that the same message answered before.
 */
export async function findForMessage(
  db: Db,
  { orgId, stableId, threadId, senderId, messageId }: Named & Place,
): Promise<(ShownQuestion & { isTaken: boolean }) | undefined> {
  const { rows } = await sql<ShownQuestion & { isTaken: boolean }>`
    select ${columns}, q.message_id is not null as "isTaken" from platform_question q
    where q.org_id = ${orgId} and q.stable_id = ${stableId} and q.thread_id = ${storableText(threadId)}
      and q.sender_id = ${storableText(senderId)}
      and (q.message_id = ${storableText(messageId)} or (q.message_id is null and not q.is_closed))
    order by q.message_id nulls last, q.created_at
    limit 1`.execute(db);
  return rows[0];
}

/** Stores which message answers a question; false: another message does. */
export async function takeMessage(
  db: Db,
  { orgId, ref, messageId }: { orgId: string; ref: string; messageId: string },
): Promise<boolean> {
  const { rows } = await sql`
    update platform_question set message_id = ${storableText(messageId)}
    where org_id = ${orgId} and ref = ${ref} and (message_id is null or message_id = ${storableText(messageId)})
    returning 1`.execute(db);
  return rows.length > 0;
}
