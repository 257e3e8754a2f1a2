import { sql } from "kysely";
import { newJoinCode, secretHash } from "../ids.ts";
import type { Db } from "./database.ts";
import { transaction } from "./database.ts";
import * as events from "./events.ts";

/** The stored form of a code as people type it: case and surrounding blanks do not matter. */
function hashOf(code: string): Buffer {
  return secretHash(code.trim().toUpperCase());
}

/** A code with which one daemon may enrol, once, within `expiresInMs`. It is returned here and kept nowhere. */
export function create(
  db: Db,
  options: { orgId: string; userId: string | null; expiresInMs: number; actor: string },
): Promise<{ code: string; expiresAt: Date }> {
  return transaction(db, async (tx) => {
    const code = newJoinCode();
    const row = await tx
      .insertInto("join_code")
      .values({
        org_id: options.orgId,
        sha256: hashOf(code),
        user_id: options.userId,
        expires_at: sql<Date>`now() + ${options.expiresInMs} * interval '1 millisecond'`,
      })
      .returning("expires_at")
      .executeTakeFirstOrThrow();
    await events.append(tx, options.orgId, [
      {
        kind: "device.join_code_created",
        actor: options.actor,
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
): Promise<{ orgId: string; userId: string | null } | undefined> {
  return db
    .updateTable("join_code")
    .set({ used_at: sql<Date>`now()` })
    .where("sha256", "=", hashOf(options.code))
    .where("used_at", "is", null)
    .where("expires_at", ">", sql<Date>`now()`)
    .returning(["org_id as orgId", "user_id as userId"])
    .executeTakeFirst();
}
