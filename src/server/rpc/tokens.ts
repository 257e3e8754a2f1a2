import { durationMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import {
  type CreateTokenRequest,
  type RotateTokenRequest,
  TokenKind,
  type TokenService,
} from "#gen/pinion/v1/token_pb.js";
import { refuse } from "../../errors.ts";
import * as callers from "../../store/people/credentials/callers.ts";
import { requireScopes } from "../../store/people/credentials/roles.ts";
import * as tokenRotations from "../../store/people/credentials/token-rotations.ts";
import * as tokens from "../../store/people/credentials/tokens.ts";
import * as devices from "../../store/people/devices/devices.ts";
import type { Db } from "../../store/pg/database.ts";
import { withCell } from "../../values/ids.ts";
import type { Guard } from "../access/guard.ts";
import { mayEnd, mayGrant, type Principal, principalOf } from "../access/principal.ts";
import type { EventAnnouncer } from "./events.ts";
import { tokenMessage } from "./messages/token-message.ts";
import { idKey, page } from "./page.ts";

/** The token service's message to the replicas that hold streams. A hint. */
export interface TokenDoorbell {
  /** Ends the streams opened with a token. */
  revoke(tokenId: string): void;
}

/** As documented in the .proto. */
const overlapMsDefault = 10 * 60_000;

interface Deps {
  db: Db;
  doorbell: TokenDoorbell;
  feed: EventAnnouncer;
  authCache: Guard["authCache"];
  /** The name in tokens and codes; "" for none. */
  cell: string;
}

type Served = ServiceImpl<typeof TokenService>;

export function tokenService(deps: Deps): Served {
  return { ...secretRpcs(deps), ...tokenRpcs(deps) };
}

/** The calls that make a secret. */
function secretRpcs(deps: Deps): Pick<Served, "createToken" | "rotateToken"> {
  const { db, cell } = deps;

  return {
    async createToken(request, context) {
      const principal = principalOf(context);
      requireMayCreate(principal, request);
      const isForPerson = request.kind === TokenKind.PAT;
      const { deviceIds, allDevices } = request;
      const expiresInMs = request.expiresIn && durationMs(request.expiresIn);
      const { token, secret } = await callers.whileGood(db, principal, async (tx, held) => {
        if (held.role) requireScopes(held.role, request.scopes, "scopes");
        tokens.requireWithin(expiresInMs, lifeMsMax(principal, held));
        return tokens.create(tx, {
          orgId: principal.orgId,
          actor: principal.actor,
          allDevices,
          deviceIds,
          kind: isForPerson ? "pat" : "svc",
          label: request.label,
          scopes: request.scopes,
          userId: isForPerson ? principal.userId : null,
          creatorId: principal.userId,
          requestId: request.requestId,
          expiresInMs,
        });
      });
      deps.feed.eventsAppended(principal.orgId);
      return { token: tokenMessage(token), secret: withCell(secret, cell) };
    },

    async rotateToken(request, context) {
      const principal = principalOf(context);
      const { orgId } = principal;
      const { tokenId } = request;
      const rotate = (tx: Db, held: callers.Held) => rotated(tx, held, { principal, request });
      const { token, secret, predecessor } = await callers.whileGood(db, principal, rotate, { tokenId });
      // The token's next use reads its expiry; on other replicas after at most the cache time of a
      // lookup.
      deps.authCache.forget(tokenId);
      deps.feed.eventsAppended(orgId);
      return {
        token: tokenMessage(token),
        secret: withCell(secret, cell),
        predecessor: tokenMessage(predecessor),
      };
    },
  };
}

function tokenRpcs(deps: Deps): Pick<Served, "listTokens" | "revokeToken"> {
  const { db } = deps;

  return {
    async listTokens(request, context) {
      const { orgId, tokenId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([idKey]),
        keyOf: (row: tokens.Token) => [row.id],
        fetch: (before, limit) => tokens.list(db, { orgId, limit, beforeId: before?.[0] }),
      });
      const caller = await tokens.find(db, { orgId, tokenId });
      return {
        tokens: rows.map(tokenMessage),
        nextPageToken,
        ...(caller ? { caller: tokenMessage(caller) } : {}),
      };
    },

    async revokeToken(request, context) {
      const principal = principalOf(context);
      const { orgId, actor } = principal;
      const { tokenId } = request;
      const found = (await tokens.find(db, { orgId, tokenId })) ?? notFound(tokenId);
      if (found.id !== principal.tokenId && !found.scopes.every((scope) => mayEnd(principal, scope))) {
        refuse("permission_denied", "a token cannot end one that may do more than itself");
      }
      const token = (await tokens.revoke(db, { orgId, tokenId, actor })) ?? notFound(tokenId);
      for (const ended of [tokenId, ...(token.signed_out_ids ?? [])]) {
        deps.authCache.forget(ended);
        deps.doorbell.revoke(ended);
      }
      deps.feed.eventsAppended(orgId);
      return { token: tokenMessage(token) };
    },
  };
}

/**
 * Refuses scopes that the principal cannot give, and a kind of token that cannot have the values.
 */
function requireMayCreate(principal: Principal, request: CreateTokenRequest): void {
  const missing = request.scopes.find((scope) => !mayGrant(principal, scope));
  if (missing) {
    refuse("permission_denied", `a token without the scope "${missing}" cannot give it to another`);
  }
  if (request.kind !== TokenKind.PAT) return;
  if (!principal.userId) {
    refuse("failed_precondition", "a service has no person to make a token for; ask for kind SVC");
  }
  const { deviceIds, allDevices } = request;
  if (deviceIds.length > 0 || allDevices) {
    const field = allDevices ? "all_devices" : "device_ids";
    refuse("invalid_argument", `${field}: is for kind SVC; a person has what the person was granted`, {
      field,
    });
  }
}

/** The successor of a token, if the principal may make one. */
async function rotated(
  tx: Db,
  held: callers.Held,
  { principal, request }: { principal: Principal; request: RotateTokenRequest },
): ReturnType<typeof tokenRotations.rotate> {
  const { orgId, actor } = principal;
  const { tokenId } = request;
  const found = (await tokens.find(tx, { orgId, tokenId })) ?? notFound(tokenId);
  await requireMayRotate(tx, principal, found);
  if (held.role) requireScopes(held.role, found.scopes, "token_id");
  return tokenRotations.rotate(tx, {
    orgId,
    tokenId,
    actor,
    creatorId: principal.userId,
    overlapMs: request.overlap ? durationMs(request.overlap) : overlapMsDefault,
    expiresInMs: request.expiresIn && durationMs(request.expiresIn),
    expiresInMsMax: lifeMsMax(principal, held),
  });
}

/**
 * Maximum life, in milliseconds, of a token created by the principal; null: no limit. An admin's
 * may outlive the admin's own.
 */
function lifeMsMax(principal: Principal, held: callers.Held): number | null {
  return principal.scopes.has("admin") ? null : held.expiresInMs;
}

/**
 * Refuses with `permission_denied` a token whose successor would have more rights than the
 * principal.
 */
async function requireMayRotate(tx: Db, principal: Principal, found: tokens.Token): Promise<void> {
  const { orgId, userId } = principal;
  // The holder of a device's token acts as the device: only its owner, who may also enrol it again,
  // may receive its token.
  if (found.kind === "dev") {
    const device = await devices.find(tx, { orgId, deviceId: found.device_id! });
    if (!userId || device?.owner_id !== userId) {
      refuse("permission_denied", "only the device's owner may rotate its token; revoke it instead");
    }
    return;
  }
  if (found.id !== principal.tokenId && !found.scopes.every((scope) => mayGrant(principal, scope))) {
    refuse("permission_denied", "a token cannot make one that may do more than itself");
  }
  // The holder of a person's token acts as the person: even an admin does not receive another
  // person's token.
  if (found.kind === "pat" && found.user_id !== userId) {
    refuse("permission_denied", "only its own person may rotate a person's token; revoke it instead");
  }
}

function notFound(tokenId: string): never {
  refuse("not_found", `there is no token ${tokenId}`);
}
