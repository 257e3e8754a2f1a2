/**
 * Signed-in browsers: a token each, whose secret is the cookie's, with the source of the sign-in.
 */
import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import type { SignInMethod } from "../../pg/schema/schema-people.ts";
import * as events from "../../work/service/events.ts";
import * as tokens from "./tokens.ts";

export type SignIn = {
  id: string;
  userId: string;
  userName: string;
  method: SignInMethod;
  address: string;
  userAgent: string;
  scopes: string[];
  createdAt: Date;
  expiresAt: Date | null;
  lastUsedAt: Date | null;
};

/**
 * Creates a browser's cookie, with the event `sign_in.started`. It ends no later than the token
 * that made it.
 */
export async function start(
  tx: Db,
  options: {
    orgId: string;
    userId: string;
    scopes: readonly string[];
    method: SignInMethod;
    /** The token that made the sign-in; null: a provider. */
    makerId: string | null;
    address: string;
    userAgent: string;
    expiresInMs: number;
  },
): Promise<{ signIn: SignIn; secret: string }> {
  const { orgId, userId, makerId, method, address, userAgent, scopes } = options;
  const { token, secret } = await tokens.issue(tx, {
    orgId,
    kind: "pat",
    label: "browser",
    scopes,
    userId,
    creatorId: userId,
    expiresInMs: options.expiresInMs,
  });
  if (makerId) {
    await sql`
      update token set expires_at = least(expires_at, (
        select m.expires_at from token m where m.org_id = ${orgId} and m.id = ${makerId}))
      where org_id = ${orgId} and id = ${token.id}`.execute(tx);
  }
  await tx
    .insertInto("sign_in")
    .values({ org_id: orgId, token_id: token.id, method, maker_id: makerId, address, user_agent: userAgent })
    .execute();
  await events.append(tx, orgId, [
    {
      kind: "sign_in.started",
      actor: `user:${userId}`,
      data: { sign_in_id: token.id, method, address, scopes: [...scopes] },
    },
  ]);
  return { signIn: (await find(tx, { orgId, signInId: token.id }))!, secret };
}

function select(db: Db) {
  return db
    .selectFrom("sign_in as s")
    .innerJoin("token as t", (join) =>
      join.onRef("t.org_id", "=", "s.org_id").onRef("t.id", "=", "s.token_id"),
    )
    .innerJoin("user as u", "u.id", "t.user_id")
    .select(["t.id", "u.id as userId", "t.scopes", "s.method", "s.address", "s.user_agent as userAgent"])
    .select([
      "t.created_at as createdAt",
      "t.expires_at as expiresAt",
      "t.last_used_at as lastUsedAt",
      "u.name as userName",
    ]);
}

export function find(db: Db, options: { orgId: string; signInId: string }): Promise<SignIn | undefined> {
  return select(db)
    .where("s.org_id", "=", options.orgId)
    .where("s.token_id", "=", options.signInId)
    .executeTakeFirst();
}

/** The valid sign-ins, newest first, at most `limit`; of `userId` if given. */
export function list(
  db: Db,
  options: { orgId: string; userId?: string | undefined; limit: number; beforeId?: string | undefined },
): Promise<SignIn[]> {
  let query = select(db)
    .where("s.org_id", "=", options.orgId)
    .where("t.revoked_at", "is", null)
    .where(sql<boolean>`coalesce(t.expires_at > now(), true)`)
    .orderBy("t.id", "desc")
    .limit(options.limit);
  if (options.userId !== undefined) query = query.where("t.user_id", "=", options.userId);
  if (options.beforeId !== undefined) query = query.where("t.id", "<", options.beforeId);
  return query.execute();
}

/**
 * Ends a sign-in, with the event `sign_in.ended`; an ended sign-in stays unchanged. False if it had
 * ended.
 */
export function end(db: Db, options: { orgId: string; signInId: string; actor: string }): Promise<boolean> {
  const { orgId, signInId } = options;
  return transaction(db, async (tx) => {
    const { numUpdatedRows } = await tx
      .updateTable("token")
      .set({ revoked_at: sql<Date>`now()` })
      .where("org_id", "=", orgId)
      .where("id", "=", signInId)
      .where("revoked_at", "is", null)
      .executeTakeFirst();
    if (numUpdatedRows === 0n) return false;
    await events.append(tx, orgId, [
      { kind: "sign_in.ended", actor: options.actor, data: { sign_in_id: signInId } },
    ]);
    return true;
  });
}
