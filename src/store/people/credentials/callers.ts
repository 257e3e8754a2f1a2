import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import type { Role } from "../../pg/schema/schema-people.ts";
import * as members from "../orgs/members.ts";

/** The caller who creates a credential, or changes the org's members. */
export type Caller = {
  orgId: string;
  tokenId: string;
  /** Null for a service. */
  userId: string | null;
};

/** A locked caller; see {@link whileGood}. */
export type Held = {
  /** Until the caller's token expires, by the database's clock; null if never. */
  expiresInMs: number | null;
  /** The caller's current role in the org; null for a service. */
  role: Role | null;
};

/**
 * Calls `fn` in a transaction in which the caller's token stays valid and the caller, if a person,
 * stays a member in the same role: transactions that end or change them wait for the commit, and
 * then see the writes. Refuses with `unauthenticated` if the token or the membership has ended
 * already; the guard's lookup may be some seconds old. `changes`: another token that `fn` will
 * change.
 */
export function whileGood<T>(
  db: Db,
  caller: Caller,
  fn: (tx: Db, held: Held) => Promise<T>,
  changes?: { tokenId: string },
): Promise<T> {
  return transaction(db, async (tx) => fn(tx, await hold(tx, caller, changes)));
}

/**
 * {@link whileGood} for a caller who changes members. The order of locks is: the org's members as a
 * whole, the changed member, the caller, the caller's token; so a removal of the caller waits or is
 * waited for, without a deadlock. Null means Pinion itself, with an owner's rights.
 */
export async function holdToManage(
  tx: Db,
  options: { orgId: string; userId: string; caller: Caller | null },
): Promise<{ owners: string[]; target: Role | undefined; held: Held }> {
  const owners = await members.lockOwners(tx, options.orgId);
  const target = await members.lock(tx, options);
  const held = options.caller
    ? await hold(tx, options.caller)
    : { expiresInMs: null, role: "owner" as const };
  return { owners, target, held };
}

async function hold(tx: Db, caller: Caller, changes?: { tokenId: string }): Promise<Held> {
  const { orgId, tokenId, userId } = caller;
  // The member before the token, as in a member's removal. The role, too, so that a token created
  // here fits the role.
  const role = userId === null ? null : ((await members.holdRole(tx, { orgId, userId })) ?? refuseEnded());
  if (changes) {
    // In one order, for two callers who rotate each other's token or the same token: two share
    // locks would deadlock.
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
    // Not now(): the awaited rotation may have ended the token after the transaction began.
    .where(sql<boolean>`coalesce(expires_at > clock_timestamp(), true)`)
    .forShare()
    .executeTakeFirst();
  if (!token) refuseEnded();
  return { expiresInMs: token.expires_in_ms, role };
}

function refuseEnded(): never {
  refuse("unauthenticated", "the token is unknown, revoked or expired");
}
