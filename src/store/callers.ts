import { sql } from "kysely";
import { refuse } from "../errors.ts";
import type { Db } from "./database.ts";
import { transaction } from "./database.ts";
import * as members from "./members.ts";

/** Whose call makes a credential. */
export type Caller = {
  orgId: string;
  tokenId: string;
  /** Null for a service. */
  userId: string | null;
};

/** A caller that is held; see {@link whileGood}. */
export type Held = {
  /** Until the caller's token expires, by the database's clock; null if never. */
  expiresInMs: number | null;
};

/**
 * Calls `fn` in a transaction in which the caller's token stays good, and the caller, if it is a person, a member: whoever
 * ends either of them waits for the commit, and sees what was made. Refuses with `unauthenticated` if it has happened
 * already; a lookup of the guard may be some seconds old. `changes` is another token that `fn` will change.
 */
export function whileGood<T>(
  db: Db,
  caller: Caller,
  fn: (tx: Db, held: Held) => Promise<T>,
  changes?: { tokenId: string },
): Promise<T> {
  const { orgId, tokenId, userId } = caller;
  return transaction(db, async (tx) => {
    // The member before the token, as whoever removes a member does.
    if (userId !== null && !(await members.hold(tx, { orgId, userId }))) refuseEnded();
    if (changes) {
      // In one order, for two who rotate each other's token or the same one: a share lock cannot give way to another.
      await tx
        .selectFrom("token")
        .select("id")
        .where("org_id", "=", orgId)
        .where("id", "in", [tokenId, changes.tokenId])
        .orderBy("id")
        .forNoKeyUpdate()
        .execute();
    }
    const token = await tx
      .selectFrom("token")
      .select(sql<number | null>`(extract(epoch from expires_at - now()) * 1000)::bigint`.as("expires_in_ms"))
      .where("org_id", "=", orgId)
      .where("id", "=", tokenId)
      .where("revoked_at", "is", null)
      // Not now(): the rotation that this waited for may have ended the token after this transaction began.
      .where(sql<boolean>`coalesce(expires_at > clock_timestamp(), true)`)
      .forShare()
      .executeTakeFirst();
    if (!token) refuseEnded();
    return fn(tx, { expiresInMs: token.expires_in_ms });
  });
}

function refuseEnded(): never {
  refuse("unauthenticated", "the token is unknown, revoked or expired");
}
