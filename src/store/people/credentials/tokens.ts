import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import { newToken, secretHash } from "../../../values/ids.ts";
import type { Db } from "../../pg/database.ts";
import { transaction } from "../../pg/database.ts";
import type { Role, TokenKind, TokenRow } from "../../pg/schema/schema-people.ts";
import * as events from "../../work/service/events.ts";
import * as grants from "../devices/grants.ts";
import * as requests from "../requests.ts";
import { cutScopes, findScopeBeyond } from "./roles.ts";

/** The columns of a token that its holder may see: all but the hash. */
export type Token = Omit<TokenRow, "sha256"> & {
  /** The token's creator is no longer a member; set by {@link list} alone. */
  has_creator_left?: boolean;
  /** Browsers signed in with the token and now signed out; set by {@link revoke} alone. */
  signed_out_ids?: string[];
};

export const columns = [
  "org_id",
  "id",
  "kind",
  "label",
  "scopes",
  "user_id",
  "device_id",
  "created_at",
  "expires_at",
  "last_used_at",
  "revoked_at",
  "rotated_at",
  "creator_id",
  "predecessor_id",
  "all_devices",
] as const;

export type NewTokenOptions = {
  orgId: string;
  kind: TokenKind;
  label: string;
  scopes: readonly string[];
  userId?: string | null;
  /** Set for a `dev` token, and for no other. */
  deviceId?: string | null;
  /** The person who created the token; null: a service, or Pinion. */
  creatorId?: string | null;
  /** The token's predecessor in a rotation. */
  predecessorId?: string;
  /** Whether a service may use every device without grants. */
  allDevices?: boolean;
  /** Milliseconds from now, by the database's clock; absent: never. */
  expiresInMs?: number | undefined;
  /** Chosen by the operator; undefined: a new secret. */
  secret?: string | undefined;
};

/** Stores a new token. The secret is returned here and kept nowhere. */
export async function issue(db: Db, options: NewTokenOptions): Promise<{ token: Token; secret: string }> {
  const secret = options.secret ?? newToken(options.kind);
  const token = await db
    .insertInto("token")
    .values({
      org_id: options.orgId,
      kind: options.kind,
      label: options.label,
      sha256: secretHash(secret),
      scopes: [...options.scopes],
      user_id: options.userId ?? null,
      device_id: options.deviceId ?? null,
      creator_id: options.creatorId ?? null,
      predecessor_id: options.predecessorId ?? null,
      all_devices: options.allDevices ?? false,
      expires_at:
        options.expiresInMs === undefined
          ? null
          : sql<Date>`now() + ${options.expiresInMs} * interval '1 millisecond'`,
    })
    .returning(columns)
    .executeTakeFirstOrThrow();
  return { token, secret };
}

/**
 * {@link issue} with its event, `token.created`. A repeated request id refuses with
 * `already_exists` and the token's id, because the secret was shown once.
 */
export function create(
  db: Db,
  options: NewTokenOptions & {
    actor: string;
    requestId?: string;
    /** For a service: devices granted in full. */
    deviceIds?: readonly string[];
  },
): Promise<{ token: Token; secret: string }> {
  const { orgId, actor, requestId = "" } = options;
  const request = { orgId, actor, requestId, rpc: "TokenService/CreateToken" };
  return transaction(db, async (tx) => {
    const made = await requests.begin(tx, request);
    if (made) refuseRepeat(made.token_id);
    const issued = await issue(tx, options);
    await requests.record(tx, request, { token_id: issued.token.id });
    const grantee = { tokenId: issued.token.id };
    const granted: Omit<events.NewEvent, "orgId">[] = [];
    for (const deviceId of [...(options.deviceIds ?? [])].map((id) => id.toLowerCase()).sort()) {
      const permissions = ["use", "manage", "read"] as const;
      granted.push(...(await grants.grantIn(tx, { orgId, actor, deviceId, permissions, grantee })).written);
    }
    await events.append(tx, options.orgId, [
      ...granted,
      {
        kind: "token.created",
        actor: options.actor,
        deviceId: options.deviceId ?? null,
        data: {
          token_id: issued.token.id,
          kind: options.kind,
          label: options.label,
          scopes: [...options.scopes],
          ...(options.allDevices ? { all_devices: true } : {}),
        },
      },
    ]);
    return issued;
  });
}

export function refuseRepeat(tokenId: string): never {
  refuse(
    "already_exists",
    `an earlier call with this request_id made the token ${tokenId}, whose secret was shown then and is kept nowhere; ` +
      "revoke that token, and ask again with another request_id",
    { field: "request_id" },
  );
}

/**
 * Removes scopes above the role from a person's tokens, and from the tokens of services created by
 * the person, whose secrets the person may know. With `keepsServices` the services' tokens stay
 * unchanged.
 */
export async function cutToRole(
  tx: Db,
  options: { orgId: string; userId: string; role: Role; keepsServices: boolean },
): Promise<RoleCut> {
  const { orgId, userId, role } = options;
  const rows = await tx
    .selectFrom("token")
    .select(["id", "scopes", "kind", "all_devices"])
    .where("org_id", "=", orgId)
    .where((eb) => eb.or([eb("user_id", "=", userId), eb("creator_id", "=", userId).and("kind", "=", "svc")]))
    .where("revoked_at", "is", null)
    .where(sql<boolean>`coalesce(expires_at > now(), true)`)
    .orderBy("id")
    .forNoKeyUpdate()
    .execute();
  // A member may not have services that reach every device, either.
  const tooStrong = rows.filter(
    ({ scopes, all_devices }) => findScopeBeyond(role, scopes) || (all_devices && role === "member"),
  );
  const cut = tooStrong.filter(({ kind }) => kind !== "svc" || !options.keepsServices);
  for (const { id, scopes } of cut) {
    await tx
      .updateTable("token")
      .set({ scopes: cutScopes(role, scopes), ...(role === "member" ? { all_devices: false } : {}) })
      .where("org_id", "=", orgId)
      .where("id", "=", id)
      .execute();
  }
  const servicesCut = cut.filter(({ kind }) => kind === "svc").length;
  return {
    tokenIds: cut.map(({ id }) => id),
    servicesCut,
    servicesKept: tooStrong.length - cut.length,
  };
}

export type RoleCut = {
  /** Tokens with reduced scopes. */
  tokenIds: string[];
  /** Number of services' tokens among them. */
  servicesCut: number;
  /** Number of services' tokens above the role that stayed unchanged. */
  servicesKept: number;
};

export async function find(db: Db, options: { orgId: string; tokenId: string }): Promise<Token | undefined> {
  return db
    .selectFrom("token")
    .select(columns)
    .where("org_id", "=", options.orgId)
    .where("id", "=", options.tokenId)
    .executeTakeFirst();
}

/** The org's tokens, newest first, at most `limit`; older than `beforeId` if given. */
export function list(
  db: Db,
  options: { orgId: string; limit: number; beforeId?: string | undefined },
): Promise<Token[]> {
  let query = db
    .selectFrom("token")
    .select(columns)
    .select(
      sql<boolean>`creator_id is not null and not exists (select from member m
        where m.org_id = token.org_id and m.user_id = token.creator_id)`.as("has_creator_left"),
    )
    .where("org_id", "=", options.orgId)
    // signIns.list shows signed-in browsers.
    .where(
      sql<boolean>`not exists (select from sign_in s where s.org_id = token.org_id and s.token_id = token.id)`,
    )
    .orderBy("id", "desc")
    .limit(options.limit);
  if (options.beforeId !== undefined) query = query.where("id", "<", options.beforeId);
  return query.execute();
}

/**
 * Revokes a token and the sign-ins made with it, with the event `token.revoked`; a revoked token
 * stays unchanged. Undefined if the org has no such token.
 */
export function revoke(
  db: Db,
  options: { orgId: string; tokenId: string; actor: string },
): Promise<Token | undefined> {
  return transaction(db, async (tx) => {
    const revoked = await tx
      .updateTable("token")
      .set({ revoked_at: sql<Date>`now()` })
      .where("org_id", "=", options.orgId)
      .where("id", "=", options.tokenId)
      .where("revoked_at", "is", null)
      .returning(columns)
      .executeTakeFirst();
    if (!revoked) return find(tx, options);
    const signedOut = await sql<{ id: string }>`
      update token t set revoked_at = now() from sign_in s
      where s.org_id = ${options.orgId} and s.maker_id = ${options.tokenId}
        and t.org_id = s.org_id and t.id = s.token_id and t.revoked_at is null
      returning t.id`.execute(tx);
    await events.append(tx, options.orgId, [
      {
        kind: "token.revoked",
        actor: options.actor,
        deviceId: revoked.device_id,
        data: { token_id: revoked.id, kind: revoked.kind, label: revoked.label },
      },
    ]);
    return { ...revoked, signed_out_ids: signedOut.rows.map(({ id }) => id) };
  });
}

/** Refuses with `permission_denied` a life above `expiresInMsMax`; null: no limit. */
export function requireWithin(expiresInMs: number | undefined, expiresInMsMax: number | null): void {
  if (expiresInMsMax === null || (expiresInMs !== undefined && expiresInMs <= expiresInMsMax)) return;
  refuse(
    "permission_denied",
    'a token without the scope "admin" cannot make one that outlives it: ' +
      `ask for an expires_in of at most ${Math.floor(expiresInMsMax / 1_000)} s`,
  );
}

/** Revokes the good tokens of a device; answers their ids. Events are the caller's. */
export async function revokeOfDevice(
  tx: Db,
  { orgId, deviceId }: { orgId: string; deviceId: string },
): Promise<string[]> {
  const revoked = await tx
    .updateTable("token")
    .set({ revoked_at: sql<Date>`now()` })
    .where("org_id", "=", orgId)
    .where("device_id", "=", deviceId)
    .where("revoked_at", "is", null)
    .returning("id")
    .execute();
  return revoked.map(({ id }) => id);
}

/** Deletes the tokens of a device; answers their ids. Events are the caller's. */
export async function removeOfDevice(
  tx: Db,
  { orgId, deviceId }: { orgId: string; deviceId: string },
): Promise<string[]> {
  const removed = await tx
    .deleteFrom("token")
    .where("org_id", "=", orgId)
    .where("device_id", "=", deviceId)
    .returning("id")
    .execute();
  return removed.map(({ id }) => id);
}

/**
 * Revokes the valid tokens of a person and of the person's devices and, with `endsServices`, of
 * services created by the person; returns their ids. The caller appends the events.
 */
export async function revokeOfPerson(
  tx: Db,
  { orgId, userId, endsServices }: { orgId: string; userId: string; endsServices: boolean },
): Promise<string[]> {
  const revoked = await tx
    .updateTable("token")
    .set({ revoked_at: sql<Date>`now()` })
    .where("org_id", "=", orgId)
    .where("revoked_at", "is", null)
    .where((eb) =>
      eb.or([
        eb("user_id", "=", userId),
        ...(endsServices ? [eb("creator_id", "=", userId).and("kind", "=", "svc")] : []),
        eb(
          "device_id",
          "in",
          eb.selectFrom("device").select("id").where("org_id", "=", orgId).where("owner_id", "=", userId),
        ),
      ]),
    )
    .returning("id")
    .execute();
  return revoked.map(({ id }) => id);
}

/** Number of valid services' tokens created by a person. */
export async function countOfServices(
  db: Db,
  { orgId, creatorId }: { orgId: string; creatorId: string },
): Promise<number> {
  const row = await db
    .selectFrom("token")
    .select((eb) => eb.fn.countAll<number>().as("count"))
    .where("org_id", "=", orgId)
    .where("creator_id", "=", creatorId)
    .where("kind", "=", "svc")
    .where("revoked_at", "is", null)
    .where(sql<boolean>`coalesce(expires_at > now(), true)`)
    .executeTakeFirstOrThrow();
  return Number(row.count);
}
