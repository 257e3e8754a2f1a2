import { DeviceService } from "#gen/pinion/v1/device_pb.js";
import { createBatcher } from "../../batches/batcher.ts";
import { Refusal, refuse } from "../../errors.ts";
import * as credentials from "../../store/people/credentials/credentials.ts";
import type { Db } from "../../store/pg/database.ts";
import type { Logger } from "../../telemetry/log.ts";
import { secretHash, tokenKind } from "../../values/ids.ts";
import { brings, type Principal, requireHere, type Scope } from "./principal.ts";
import { nameOf, type Rule, rules } from "./rules.ts";
import { TokenCache } from "./token-cache.ts";
import { createTokenUses } from "./token-uses.ts";

const streamRpc = nameOf(DeviceService.method.connect);

/**
 * Token lookups per statement, and the maximum waiting: a reconnecting fleet looks up the tokens of
 * all its devices at once.
 */
const lookupsPerBatchMax = 500;
const lookupsWaitingMax = 50_000;
/**
 * Lookups of suspects: per statement, the time to gather a batch in milliseconds, and the maximum
 * waiting.
 */
const suspectsPerBatchMax = 200;
const suspectsGatherMs = 250;
const suspectsWaitingMax = 2_000;
/**
 * The same message for all three cases: the holder of an invalid token does not learn the reason.
 */
const noGood = "the token is unknown, revoked or expired";
const malformed = "the token is malformed; it may have been cut or mistyped";

export type Guard = {
  /**
   * The principal of an `authorization` header. Refuses with `unauthenticated`: no token, or a
   * malformed, unknown, expired or revoked token. A token with a wrong checksum costs no query.
   */
  authenticate(
    authorization: string | null | undefined,
    /**
     * A suspect's lookup waits for other lookups, so that any number of them costs a few statements
     * per second.
     */
    options?: { isSuspect: boolean },
  ): Promise<Principal>;
  /**
   * Whether the header has a well-formed token that needs a lookup, because no cached result
   * exists.
   */
  isUnknown(authorization: string | null | undefined): boolean;
  /** The principal of a header whose token needs no lookup now; undefined for all others. */
  findKnown(authorization: string | undefined): Principal | undefined;
  /**
   * Admits a call of an rpc (see {@link nameOf}), or refuses. Undefined if the rpc needs no token.
   */
  admit(rpc: string, authorization: string | null | undefined): Promise<Principal | undefined>;
  authCache: Pick<TokenCache, "forget" | "forgetPerson">;
  /** Writes the waiting uses. */
  flush(): Promise<void>;
  /** Stops the timer and writes the waiting uses. */
  close(): Promise<void>;
};

export function createGuard({ db, log }: { db: Db; log: Logger }): Guard {
  const cache = new TokenCache();
  const uses = createTokenUses(db, log);
  const lookups = createLookups(db);

  async function authenticate(
    authorization: string | null | undefined,
    { isSuspect } = { isSuspect: false },
  ): Promise<Principal> {
    const secret = secretOf(authorization);
    if (!secret) refuse("unauthenticated", "a token is needed: authorization: Bearer pin_…");
    if (!tokenKind(secret)) refuse("unauthenticated", malformed);
    const hash = secretHash(secret);
    const cached = cache.find(hash);
    if (cached === "no good") refuse("unauthenticated", noGood);
    if (!cached) return uses.note(await lookUp(hash, isSuspect ? lookups.suspects : lookups.ordinary));
    // Without the lookup the cached principal ends as it would have; a refusal is kept by it.
    if (cache.isAging(hash)) lookUp(hash, lookups.ordinary).catch(() => {});
    return uses.note(cached);
  }

  async function lookUp(hash: Buffer, batcher: Batcher): Promise<Principal> {
    const keep = cache.beginLookup(hash);
    const credential = await batcher.add(hash);
    if (!credential || credential.isRevoked || (credential.expiresInMs ?? 1) <= 0) {
      // An expired token may be prolonged; an unknown or revoked token never becomes valid.
      keep(!credential || credential.isRevoked ? "no good" : undefined);
      refuse("unauthenticated", noGood);
    }
    const principal = principalFrom(credential);
    // The end of a move is seen at once.
    keep(principal.leaving ? undefined : principal, credential.expiresInMs);
    return principal;
  }

  return {
    authenticate,
    isUnknown(authorization) {
      const hash = hashOf(authorization);
      return hash !== undefined && !cache.has(hash);
    },
    findKnown(authorization) {
      const hash = hashOf(authorization);
      const found = hash && cache.find(hash);
      return found === "no good" ? undefined : found;
    },
    async admit(rpc, authorization) {
      const rule = rules[rpc];
      if (!rule) throw new Error(`no rule for ${rpc}`);
      if (rule.needs === "no token") return undefined;
      const principal = await authenticate(authorization);
      requireRule(principal, rule);
      if (rpc !== streamRpc) requireHere(principal);
      return principal;
    },
    authCache: cache,
    flush: uses.flush,
    close: uses.close,
  };
}

/** The hash of a header's token; undefined for a header without a well-formed token. */
function hashOf(authorization: string | null | undefined): Buffer | undefined {
  const secret = secretOf(authorization);
  return secret && tokenKind(secret) ? secretHash(secret) : undefined;
}

type Batcher = ReturnType<typeof createBatcher<Buffer, credentials.Credential | undefined>>;
type Lookups = { ordinary: Batcher; suspects: Batcher };

/**
 * Lookups of tokens in batches; those of suspects wait for others, and have a bound of their own.
 */
function createLookups(db: Db): Lookups {
  const run = (hashes: readonly Buffer[]) => credentials.findByHashes(db, hashes);
  return {
    ordinary: createBatcher({
      run,
      itemsMax: lookupsPerBatchMax,
      queueMax: lookupsWaitingMax,
      overflow: () => new Refusal("unavailable", "too many calls at once", { retryAfterMs: 1_000 }),
    }),
    suspects: createBatcher({
      run,
      itemsMax: suspectsPerBatchMax,
      queueMax: suspectsWaitingMax,
      gatherMs: suspectsGatherMs,
      overflow: () =>
        new Refusal(
          "resource_exhausted",
          "too many tokens or join codes that were no good come from this address, or begin as this one does; wait, and use one that is",
          { retryAfterMs: suspectsGatherMs },
        ),
    }),
  };
}

function secretOf(authorization: string | null | undefined): string | undefined {
  return /^bearer +(\S+)$/i.exec(authorization ?? "")?.[1];
}

/** Refuses with `permission_denied` a principal without the required rights. */
function requireRule(principal: Principal, rule: Exclude<Rule, { needs: "no token" }>): void {
  if (rule.needs === "device token") {
    if (!isDevice(principal)) {
      refuse("permission_denied", "only a device's own token may do this; enrol the device to get one");
    }
  } else if (rule.needs === "executor token") {
    if (!isDevice(principal) && !isFleet(principal)) {
      refuse(
        "permission_denied",
        'only a device\'s own token or a service token with the scope "fleet:run" may do this; ' +
          "enrol the device, or make a token for the fleet worker",
      );
    }
  } else if (!principal.scopes.has(rule.scope)) {
    refuse("permission_denied", `the token lacks the scope "${rule.scope}"`);
  }
}

function isDevice(principal: Principal): boolean {
  return principal.kind === "dev" && principal.scopes.has("device:run");
}

/** Whether the token is a fleet worker's; the hello names the worker. */
function isFleet(principal: Principal): boolean {
  return principal.kind === "svc" && principal.scopes.has("fleet:run");
}

/**
 * Principals with the same rights share one set: a replica may know the tokens of a whole fleet.
 */
const knownScopes = new Map<string, ReadonlySet<Scope>>();

function scopesOf(granted: readonly Scope[]): ReadonlySet<Scope> {
  const name = granted.toSorted().join(" ");
  const known = knownScopes.get(name) ?? new Set(granted.flatMap((scope) => brings[scope]));
  knownScopes.set(name, known);
  return known;
}

function principalFrom(credential: credentials.Credential): Principal {
  const { orgId, tokenId, kind, userId, deviceId } = credential;
  const granted = credential.scopes.filter((scope): scope is Scope => Object.hasOwn(brings, scope));
  return {
    orgId,
    actor: actorOf(credential),
    tokenId,
    kind,
    leaving: credential.leaving,
    scopes: scopesOf(granted),
    userId,
    deviceId,
    isEverywhere:
      userId !== null && kind === "pat"
        ? credential.role === "owner" || credential.role === "admin"
        : kind !== "dev" && (granted.includes("admin") || credential.allDevices),
  };
}

function actorOf({ kind, tokenId, userId, deviceId }: credentials.Credential): string {
  switch (kind) {
    case "pat":
      return userId ? `user:${userId}` : `service:${tokenId}`;
    case "dev":
      return `device:${deviceId}`;
    case "svc":
      return `service:${tokenId}`;
  }
}
