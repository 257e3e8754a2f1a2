import { sql } from "kysely";
import { refuse } from "../../errors.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import type { Role } from "../pg/schema.ts";
import * as members from "./members.ts";

/** Whose call makes a credential, or decides who belongs to the org. */
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
  /** What the caller is in the org at this moment; null for a service. */
  role: Role | null;
};

/**
 * Calls `fn` in a transaction in which the caller's token stays good, and the caller, if it is a person, a member in the
 * same role: whoever ends or changes one of them waits for the commit, and sees what was made. Refuses with
 * `unauthenticated` if a token or a membership has ended already; a lookup of the guard may be some seconds old. `changes`
 * is another token that `fn` will change.
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
 * {@link whileGood} for a caller who changes members. Locks come in this order: the org's members as a whole, the member
 * who is changed, the caller, the caller's token; so whoever removes the caller waits, or is waited for, and no two wait for
 * each other. Null is Pinion itself, with an owner's rights.
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
  // The member before the token, as whoever removes a member does. The role too: a token made here fits it.
  const role = userId === null ? null : ((await members.holdRole(tx, { orgId, userId })) ?? refuseEnded());
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
  return { expiresInMs: token.expires_in_ms, role };
}

function refuseEnded(): never {
  refuse("unauthenticated", "the token is unknown, revoked or expired");
}
