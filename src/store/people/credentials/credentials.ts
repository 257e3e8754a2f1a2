import { type RawBuilder, sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import type { Look } from "../../pg/looks.ts";
import type { Role, TokenKind } from "../../pg/schema/schema-people.ts";
import { unnest } from "../../pg/values/unnest.ts";
import * as orgMoves from "../../work/service/org-moves.ts";

/** A token as the guard sees it. */
export type Credential = {
  orgId: string;
  tokenId: string;
  kind: TokenKind;
  scopes: string[];
  userId: string | null;
  deviceId: string | null;
  /**
   * Milliseconds until the expiry, by the database's clock; null for none. 0 or negative after the
   * expiry.
   */
  expiresInMs: number | null;
  isRevoked: boolean;
  /** The person's role in the org; null for a service and a device. */
  role: Role | null;
  allDevices: boolean;
  /** The org is not here: it moves, or has moved. */
  leaving: orgMoves.Leaving | undefined;
};

/**
 * The tokens of the hashes, in their order; undefined for an unknown hash. The only read of tenant
 * data without an org: the token tells the org.
 */
export async function findByHashes(db: Db, hashes: readonly Buffer[]): Promise<(Credential | undefined)[]> {
  const rows = await db
    .selectFrom("token as t")
    .leftJoin("member as m", (join) =>
      join.onRef("m.org_id", "=", "t.org_id").onRef("m.user_id", "=", "t.user_id").on("t.kind", "=", "pat"),
    )
    .select([
      "t.sha256",
      "t.org_id",
      "t.id",
      "t.kind",
      "t.scopes",
      "t.user_id",
      "t.device_id",
      "t.revoked_at",
    ])
    .select(["t.all_devices", "m.role"])
    .select(orgMoves.leavingOf("t.org_id").as("leaving"))
    .select(sql<number | null>`(extract(epoch from t.expires_at - now()) * 1000)::bigint`.as("expires_in_ms"))
    .where("sha256", "=", sql<Buffer>`any(${[...hashes]}::bytea[])`)
    .execute();
  const found = new Map(
    rows.map((row) => [
      row.sha256.toString("hex"),
      {
        orgId: row.org_id,
        tokenId: row.id,
        kind: row.kind,
        scopes: row.scopes,
        userId: row.user_id,
        deviceId: row.device_id,
        expiresInMs: row.expires_in_ms,
        isRevoked: row.revoked_at !== null,
        role: row.role,
        allDevices: row.all_devices,
        leaving: orgMoves.leavingIn(row.leaving),
      },
    ]),
  );
  return hashes.map((hash) => found.get(hash.toString("hex")));
}

type HeldToken = { orgId: string; tokenId: string };

/** Tokens as an input of {@link ended}, encoded once for any number of statements. */
export type HeldTokens = { readonly input: RawBuilder<unknown> };

/** Undefined for no tokens. */
export function heldTokens(held: readonly HeldToken[]): HeldTokens | undefined {
  if (held.length === 0) return undefined;
  const input = unnest("h", held, {
    org_id: ["text", (token) => token.orgId],
    id: ["uuid", (token) => token.tokenId],
  });
  return { input };
}

/**
 * The ids of tokens that are revoked, expired or deleted (undefined), or whose org is leaving. One
 * statement for all.
 */
export function ended(held: HeldTokens): Look<Map<string, orgMoves.Leaving | undefined>> {
  return {
    expression: sql`
      select jsonb_agg(jsonb_build_object('id', h.id,
        'leaving', case when m.org_id is not null then ${orgMoves.leavingOfRow} end))
      from ${held.input}
        left join token t on t.org_id = h.org_id and t.id = h.id
        left join org_move m on m.org_id = h.org_id
      where t.id is null or t.revoked_at is not null or t.expires_at <= now() or m.org_id is not null`,
    read(value) {
      const rows = (value ?? []) as { id: string; leaving: orgMoves.LeavingColumn }[];
      return new Map(rows.map(({ id, leaving }) => [id, orgMoves.leavingIn(leaving)]));
    },
  };
}

/**
 * Records the current use of tokens, in one statement; locked in one order, for concurrent
 * replicas.
 */
export async function recordUse(db: Db, uses: readonly { orgId: string; tokenId: string }[]): Promise<void> {
  if (uses.length === 0) return;
  await sql`
    with held as materialized (
      select t.org_id, t.id
      from token t
        join unnest(${uses.map((use) => use.orgId)}::text[], ${uses.map((use) => use.tokenId)}::uuid[]) as u(org_id, id)
          on t.org_id = u.org_id and t.id = u.id
      order by t.org_id, t.id
      for no key update of t
    )
    update token t set last_used_at = now() from held h where t.org_id = h.org_id and t.id = h.id`.execute(
    db,
  );
}
