import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import * as events from "../../work/service/events.ts";
import * as grants from "../devices/grants.ts";
import { columns, issue, requireWithin, type Token } from "./tokens.ts";

/**
 * Creates a successor of a token, with the event `token.rotated`; the token itself expires after at
 * most `overlapMs` milliseconds. `expiresInMs` undefined: the successor has the token's original
 * life. Refuses with `permission_denied` a life above `expiresInMsMax`, with `not_found`, and with
 * `failed_precondition` a token that is revoked, expired, or has a successor.
 */
export function rotate(
  db: Db,
  options: {
    orgId: string;
    tokenId: string;
    overlapMs: number;
    expiresInMs: number | undefined;
    /** Null: no bound. */
    expiresInMsMax?: number | null;
    /** The requesting person; null for a service. */
    creatorId: string | null;
    actor: string;
  },
): Promise<{ token: Token; secret: string; predecessor: Token }> {
  const { orgId, tokenId } = options;
  return transaction(db, async (tx) => {
    const old = await lockToRotate(tx, options);
    const expiresInMs = options.expiresInMs ?? old.lifetime_ms ?? undefined;
    requireWithin(expiresInMs, options.expiresInMsMax ?? null);
    const issued = await issue(tx, {
      orgId,
      kind: old.kind,
      label: old.label,
      scopes: old.scopes,
      userId: old.user_id,
      deviceId: old.device_id,
      creatorId: options.creatorId,
      predecessorId: tokenId,
      allDevices: old.all_devices,
      expiresInMs,
    });
    await grants.inherit(tx, { orgId, tokenId, successorId: issued.token.id });
    const predecessor = await endSoon(tx, options);
    const data = {
      token_id: tokenId,
      successor_id: issued.token.id,
      kind: old.kind,
      label: old.label,
      overlap_ms: options.overlapMs,
    };
    await events.append(tx, orgId, [
      { kind: "token.rotated", actor: options.actor, deviceId: old.device_id, data },
    ]);
    return { ...issued, predecessor };
  });
}

async function lockToRotate(tx: Db, { orgId, tokenId }: { orgId: string; tokenId: string }) {
  const old = await tx
    .selectFrom("token")
    .select(columns)
    .select(sql<boolean>`coalesce(expires_at <= now(), false)`.as("is_expired"))
    .select(
      sql<number | null>`(extract(epoch from expires_at - created_at) * 1000)::bigint`.as("lifetime_ms"),
    )
    .where("org_id", "=", orgId)
    .where("id", "=", tokenId)
    .forNoKeyUpdate()
    .executeTakeFirst();
  if (!old) refuse("not_found", `there is no token ${tokenId}`);
  if (old.revoked_at || old.is_expired) {
    refuse("failed_precondition", "the token has ended; make a new one instead");
  }
  if (old.rotated_at) {
    refuse("failed_precondition", "the token has a successor already; rotate that one");
  }
  return old;
}

/** Lets a rotated token, and the sign-ins made with the token, expire after the overlap. */
async function endSoon(
  tx: Db,
  { orgId, tokenId, overlapMs }: { orgId: string; tokenId: string; overlapMs: number },
): Promise<Token> {
  const ending = await tx
    .updateTable("token")
    // least() ignores the null of a token without expiry.
    .set({
      expires_at: sql<Date>`least(expires_at, now() + ${overlapMs} * interval '1 millisecond')`,
      rotated_at: sql<Date>`now()`,
    })
    .where("org_id", "=", orgId)
    .where("id", "=", tokenId)
    .returning(columns)
    .executeTakeFirstOrThrow();
  await sql`
    update token t set expires_at = least(t.expires_at, ${ending.expires_at}) from sign_in s
    where s.org_id = ${orgId} and s.maker_id = ${tokenId} and t.org_id = s.org_id and t.id = s.token_id`.execute(
    tx,
  );
  return ending;
}
