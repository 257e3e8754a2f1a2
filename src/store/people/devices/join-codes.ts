import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import { newJoinCode, secretHash } from "../../../values/ids.ts";
import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import * as events from "../../work/service/events.ts";
import * as requests from "../requests.ts";

/** The stored form of a typed code: case and surrounding blanks are ignored. */
function hashOf(code: string): Buffer {
  return secretHash(code.trim().toUpperCase());
}

/**
 * Creates a code with which a daemon may enrol, once, within `expiresInMs` milliseconds, and no
 * longer than the maker's token is valid ({@link requireMaker}). The code is returned here and
 * stored nowhere: a repeated request id refuses with `already_exists`.
 */
export function create(
  db: Db,
  options: {
    orgId: string;
    userId: string | null;
    /** The maker's; null: Pinion itself. */
    tokenId: string | null;
    expiresInMs: number;
    actor: string;
    requestId?: string;
  },
): Promise<{ code: string; expiresAt: Date }> {
  const { orgId, actor, tokenId, requestId = "" } = options;
  const request = { orgId, actor, requestId, rpc: "FleetService/CreateJoinCode" };
  return transaction(db, async (tx) => {
    if (await requests.begin(tx, request)) {
      refuse(
        "already_exists",
        "an earlier call with this request_id made a join code, which was shown then and is kept nowhere; " +
          "ask again with another request_id",
        { field: "request_id" },
      );
    }
    const code = newJoinCode();
    const row = await tx
      .insertInto("join_code")
      .values({
        org_id: orgId,
        sha256: hashOf(code),
        user_id: options.userId,
        token_id: tokenId,
        // least() ignores the null of a token that never expires.
        expires_at: sql<Date>`least(
          now() + ${options.expiresInMs} * interval '1 millisecond',
          (select expires_at from token where org_id = ${orgId} and id = ${tokenId}::uuid)
        )`,
      })
      .returning("expires_at")
      .executeTakeFirstOrThrow();
    await requests.record(tx, request, { expires_at: row.expires_at.toISOString() });
    await events.append(tx, orgId, [
      {
        kind: "device.join_code_created",
        actor,
        data: { expires_at: row.expires_at.toISOString() },
      },
    ]);
    return { code, expiresAt: row.expires_at };
  });
}

/**
 * The person who made a code, by the code alone; undefined if the code is unknown or a service's.
 */
export async function findMaker(
  db: Db,
  options: { code: string },
): Promise<{ orgId: string; userId: string } | undefined> {
  const row = await db
    .selectFrom("join_code")
    .select(["org_id as orgId", "user_id as userId"])
    .where("sha256", "=", hashOf(options.code))
    .executeTakeFirst();
  return row?.userId ? { orgId: row.orgId, userId: row.userId } : undefined;
}

/**
 * Consumes a code and returns its maker; undefined if the code is unknown, used or expired. Of two
 * concurrent calls the second waits for the first's commit and then sees a used code. Takes no org:
 * the code tells the org.
 */
export function consume(
  db: Db,
  options: { code: string },
): Promise<{ orgId: string; userId: string | null; tokenId: string | null } | undefined> {
  return db
    .updateTable("join_code")
    .set({ used_at: sql<Date>`now()` })
    .where("sha256", "=", hashOf(options.code))
    .where("used_at", "is", null)
    .where("expires_at", ">", sql<Date>`now()`)
    .returning(["org_id as orgId", "user_id as userId", "token_id as tokenId"])
    .executeTakeFirst();
}

/**
 * Locks the maker's token of a code until the commit, so that an end of the token waits. Refuses
 * with `unauthenticated` if the token has ended.
 */
export async function requireMaker(tx: Db, code: { orgId: string; tokenId: string | null }): Promise<void> {
  if (code.tokenId === null) return;
  const token = await tx
    .selectFrom("token")
    .select("id")
    .where("org_id", "=", code.orgId)
    .where("id", "=", code.tokenId)
    .where("revoked_at", "is", null)
    .where(sql<boolean>`coalesce(expires_at > clock_timestamp(), true)`)
    .forShare()
    .executeTakeFirst();
  if (!token) {
    refuse(
      "unauthenticated",
      "the token that the join code was made with was revoked or has expired, and the code with it; ask for a new one",
    );
  }
}

/** Deletes the unused join codes of a person. */
export async function removeUnused(
  tx: Db,
  { orgId, userId }: { orgId: string; userId: string },
): Promise<void> {
  await tx
    .deleteFrom("join_code")
    .where("org_id", "=", orgId)
    .where("user_id", "=", userId)
    .where("used_at", "is", null)
    .execute();
}
