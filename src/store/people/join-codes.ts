import { sql } from "kysely";
import { refuse } from "../../errors.ts";
import { newJoinCode, secretHash } from "../../ids.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import * as events from "../work/events.ts";
import * as requests from "./requests.ts";

/** The stored form of a code as people type it: case and surrounding blanks do not matter. */
function hashOf(code: string): Buffer {
  return secretHash(code.trim().toUpperCase());
}

/**
 * A code with which one daemon may enrol, once, within `expiresInMs`, and no longer than the token that it was made with is
 * good ({@link requireMaker}). It is returned here and kept nowhere: a repeat of a request id refuses with `already_exists`.
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
        // least() passes over the null of a token that never expires.
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
 * Uses a code up and tells whose it was; undefined if it is unknown, used or expired. Of two at once one wins: the
 * second waits for the first one's commit and then sees a used code. Knows no org yet: the code is what tells it.
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
 * Holds, until the commit, that the token that a code was made with is good: whoever ends it waits. Refuses with
 * `unauthenticated` if it has ended.
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
