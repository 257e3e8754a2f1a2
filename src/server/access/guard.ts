/**
 * Authorization of rpcs: the guard decides which caller may call which rpc.
 *
 * {@link file://./ownership.ts} decides about the devices that a request names.
 *
 * Every rpc has a rule here: `rulesOf` compiles only if a service's table has a line for each of
 * its rpcs, and {@link requireRules} refuses to start with an rpc without a rule. The caller is
 * identified by the token alone (R6): {@link Guard.admit} puts the principal into the call's
 * context values, and handlers read the org from {@link principalOf}, because every store function
 * asks for the org.
 *
 * The result of a token lookup is cached for 5 s; `forget` drops it at once on the local replica.
 */
import type { DescMethod, DescService } from "@bufbuild/protobuf";
import { type ContextValues, createContextKey } from "@connectrpc/connect";
import { AgentService } from "#gen/pinion/v1/agent_pb.js";
import { DestinationService } from "#gen/pinion/v1/destination_pb.js";
import { DeviceService } from "#gen/pinion/v1/device_pb.js";
import { EventService } from "#gen/pinion/v1/event_pb.js";
import { FleetService } from "#gen/pinion/v1/fleet_pb.js";
import { HookService } from "#gen/pinion/v1/hook_pb.js";
import { OrgService } from "#gen/pinion/v1/org_pb.js";
import { RunService } from "#gen/pinion/v1/run_pb.js";
import { SignInService } from "#gen/pinion/v1/sign_in_pb.js";
import { TokenService } from "#gen/pinion/v1/token_pb.js";
import { TurnService } from "#gen/pinion/v1/turn_pb.js";
import { WatcherService } from "#gen/pinion/v1/watcher_pb.js";
import { createBatcher } from "../../batcher.ts";
import { Refusal, refuse } from "../../errors.ts";
import { secretHash, type TokenKind, tokenKind } from "../../ids.ts";
import type { Logger } from "../../log.ts";
import * as tokens from "../../store/people/tokens.ts";
import type { Db } from "../../store/pg/database.ts";
import { type Leaving, refusalOf } from "../../store/work/org-moves.ts";

export const scopes = ["device:run", "fleet:run", "read", "write", "admin"] as const;
export type Scope = (typeof scopes)[number];

/** The scopes that each scope includes, itself among them. */
const brings: Record<Scope, readonly Scope[]> = {
  "device:run": ["device:run"],
  "fleet:run": ["fleet:run"],
  read: ["read"],
  write: ["write", "read"],
  admin: ["admin", "write", "read"],
};

/** The caller, as given by the token. */
export type Principal = {
  orgId: string;
  /** The actor's name in events: "user:<id>", "device:<id>" or "service:<token id>". */
  actor: string;
  tokenId: string;
  kind: TokenKind;
  /** Including all implied scopes. */
  scopes: ReadonlySet<Scope>;
  userId: string | null;
  /** Set for kind `dev`, and for no other. */
  deviceId: string | null;
  /**
   * An owner or admin of the org, or a service with the scope "admin" or for all devices: the
   * principal may use every device (ownership.ts). As old as the lookup.
   */
  isEverywhere: boolean;
  /** The org is not here: only a device's stream begins, which is sent to the new cell. */
  leaving: Leaving | undefined;
};

/** The requirement of an rpc. */
export type Rule =
  | { needs: "no token"; because: string }
  | { needs: "device token" }
  /** A device's own token, or a service's with the scope fleet:run. */
  | { needs: "executor token" }
  | { needs: "scope"; scope: Exclude<Scope, "device:run"> };

const device: Rule = { needs: "device token" };
const executor: Rule = { needs: "executor token" };
const read: Rule = { needs: "scope", scope: "read" };
const write: Rule = { needs: "scope", scope: "write" };
const admin: Rule = { needs: "scope", scope: "admin" };
const enrols: Rule = {
  needs: "no token",
  because: "the join code in the request is the credential; a daemon that enrols has no token yet",
};
const signsIn: Rule = {
  needs: "no token",
  because:
    "the code or token in the request is the credential; a browser or command that signs in has no other yet",
};
const offers: Rule = {
  needs: "no token",
  because: "says how one can sign in, which everybody may know; nothing of a tenant's",
};
const describes: Rule = {
  needs: "no token",
  because:
    "answers from the public .proto files, which hold no tenant's data; grpcurl and buf curl ask first",
};
const probes: Rule = {
  needs: "no token",
  because: "load balancers carry no token, and the answer says only whether this replica serves",
};

/** The rules of a service by fully qualified rpc; does not compile with an rpc left out. */
function rulesOf<Service extends DescService>(
  service: Service,
  table: Record<keyof Service["method"], Rule>,
): Record<string, Rule> {
  return Object.fromEntries(
    service.methods.map((method) => [nameOf(method), table[method.localName as keyof Service["method"]]]),
  );
}

/** "pinion.v1.RunService/GetRun", as in the path of a call. */
export function nameOf(method: DescMethod): string {
  return `${method.parent.typeName}/${method.name}`;
}

/** The requirement of every rpc, by its fully qualified name. */
export const rules: Readonly<Record<string, Rule>> = {
  ...rulesOf(DeviceService, {
    connect: executor,
    enroll: enrols,
    completeRun: executor,
    triggerWatcher: device,
    listMyWatchers: device,
  }),
  ...rulesOf(WatcherService, {
    createWatcher: write,
    getWatcher: read,
    listWatchers: read,
    updateWatcher: write,
    deleteWatcher: write,
    pauseWatcher: write,
    resumeWatcher: write,
    triggerWatcher: write,
    previewSchedule: read,
    backfillWatcher: write,
    listWatcherRevisions: read,
  }),
  ...rulesOf(RunService, {
    getRun: read,
    listRuns: read,
    cancelRun: write,
    startBulkOperation: write,
    getBulkOperation: read,
    listBulkOperations: read,
    stopBulkOperation: write,
    retryRun: write,
    watchRun: read,
    explainRun: read,
    listWindows: read,
    getTranscript: read,
    summarizeUsage: read,
    summarizeRuns: read,
    searchRuns: read,
    listQuestions: read,
    answerQuestion: write,
  }),
  ...rulesOf(TurnService, {
    startTurn: write,
    getTurn: read,
    watchTurn: read,
    listTurns: read,
    cancelTurn: write,
    getConversation: read,
    listConversations: read,
    deleteConversation: write,
  }),
  ...rulesOf(FleetService, {
    listDevices: read,
    getDevice: read,
    updateDevice: write,
    labelDevice: write,
    deleteDevice: write,
    disconnectDevice: write,
    getDeviceLog: read,
    createJoinCode: write,
    grantDevice: write,
    revokeGrant: write,
    listGrants: read,
  }),
  // A caller with `write` may create and revoke tokens with no more rights than its own: see
  // rpc/tokens.ts.
  ...rulesOf(TokenService, { createToken: write, listTokens: read, revokeToken: write, rotateToken: write }),
  ...rulesOf(SignInService, {
    getSignInOptions: offers,
    createSignInLink: write,
    signIn: signsIn,
    signOut: read,
    getCaller: read,
    listSignIns: read,
    endSignIn: write,
    startLogin: offers,
    finishLogin: signsIn,
    getLogin: write,
    decideLogin: write,
  }),
  // CreateOrg and ListOrgs are for the operator's org alone: see rpc/orgs.ts.
  ...rulesOf(OrgService, {
    createOrg: admin,
    getOrg: read,
    listOrgs: admin,
    listSecrets: read,
    addMember: admin,
    removeMember: admin,
    listMembers: read,
  }),
  // An agent's settings decide its rights wherever the agent works; starting, stopping or removing
  // a platform affects people outside of the org.
  ...rulesOf(AgentService, {
    createAgent: admin,
    getAgent: read,
    listAgents: read,
    listAgentRevisions: read,
    updateAgentSettings: admin,
    deleteAgent: admin,
    upsertPlatform: admin,
    batchUpsertPlatforms: admin,
    listPlatforms: read,
    deletePlatform: admin,
    startPlatform: admin,
    stopPlatform: admin,
  }),
  // A destination sends agents' texts out of the org.
  ...rulesOf(DestinationService, {
    createDestination: admin,
    getDestination: read,
    listDestinations: read,
    updateDestination: admin,
    deleteDestination: admin,
    rotateDestinationSecret: admin,
    testDestination: admin,
    listDeliveries: read,
    replayDeliveries: admin,
  }),
  ...rulesOf(HookService, {
    createHook: write,
    getHook: read,
    listHooks: read,
    updateHook: write,
    deleteHook: write,
    rotateHookSecret: write,
    listHookDeliveries: read,
    getHookDelivery: read,
    replayHookDelivery: write,
  }),
  ...rulesOf(EventService, { watchEvents: read, listEvents: read }),
  "grpc.health.v1.Health/Check": probes,
  "grpc.health.v1.Health/List": probes,
  "grpc.health.v1.Health/Watch": probes,
  "grpc.reflection.v1.ServerReflection/ServerReflectionInfo": describes,
  "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": describes,
};

/** Throws if an rpc of the services has no rule. Called before the first rpc is served. */
export function requireRules(services: readonly DescService[]): void {
  const without = services
    .flatMap((service) => service.methods.map(nameOf))
    .filter((name) => !Object.hasOwn(rules, name));
  if (without.length > 0) throw new Error(`no rule in src/server/access/guard.ts for ${without.join(", ")}`);
}

const streamRpc = nameOf(DeviceService.method.connect);

const principalKey = createContextKey<Principal | undefined>(undefined, { description: "principal" });

export function setPrincipal(values: ContextValues, principal: Principal): void {
  values.set(principalKey, principal);
}

/** The caller, if the rpc needs a token. */
export function findPrincipal(values: ContextValues): Principal | undefined {
  return values.get(principalKey);
}

/** The caller. Throws for an rpc without a token: its handler must not read a tenant's data. */
export function principalOf(context: { values: ContextValues }): Principal {
  const principal = findPrincipal(context.values);
  if (!principal) throw new Error("a handler asked for the principal of a call that has none");
  return principal;
}

/**
 * Whether the principal may create a token with the scope: only a scope of its own; an admin any
 * but a device's.
 */
export function mayGrant(principal: Principal, scope: string): boolean {
  return principal.scopes.has(scope as Scope) || (principal.scopes.has("admin") && scope !== "device:run");
}

/**
 * Whether the principal may end a token with the scope: only a scope of its own; an admin any, also
 * a device's.
 */
export function mayEnd(principal: Principal, scope: string): boolean {
  return principal.scopes.has(scope as Scope) || principal.scopes.has("admin");
}

/**
 * Milliseconds that a lookup is cached. After a missed `forget`, a revoked token works at most for
 * this time.
 */
const cacheMs = 5_000;
/** Maximum number of cached tokens; the oldest lookup is dropped first. About 4 MB. */
const cacheEntriesMax = 10_000;
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
/** Maximum number of invalid tokens remembered, each for `cacheMs`. */
const badEntriesMax = 20_000;
/** `last_used_at` is right to about a minute. */
const usesFlushMs = 30_000;
/** Maximum number of tokens with a use to write; further uses are dropped until the next flush. */
const usesMax = 50_000;

/**
 * The same message for all three cases: the holder of an invalid token does not learn the reason.
 */
const noGood = "the token is unknown, revoked or expired";

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
  /**
   * Admits a call of an rpc (see {@link nameOf}), or refuses. Undefined if the rpc needs no token.
   */
  admit(rpc: string, authorization: string | null | undefined): Promise<Principal | undefined>;
  authCache: {
    /** The token's next use asks the database, also if a lookup is under way. */
    forget(tokenId: string): void;
    /** {@link forget} for all tokens of a person in an org: their role changed. */
    forgetPerson(person: { orgId: string; userId: string }): void;
  };
  /** Writes the waiting uses. */
  flush(): Promise<void>;
  /** Stops the timer and writes the waiting uses. */
  close(): Promise<void>;
};

export function createGuard(options: { db: Db; log: Logger }): Guard {
  const { db, log } = options;
  const cache = new Map<string, { principal: Principal; until: number }>();
  /** Grows with every `forget`, so that the result of an earlier lookup is not cached. */
  let generation = 0;
  let uses = new Map<string, { orgId: string; tokenId: string }>();

  const lookups = createBatcher<Buffer, tokens.Credential | undefined>({
    run: (hashes) => tokens.findByHashes(db, hashes),
    itemsMax: lookupsPerBatchMax,
    queueMax: lookupsWaitingMax,
    overflow: () => new Refusal("unavailable", "too many calls at once", { retryAfterMs: 1_000 }),
  });

  const suspects = createBatcher<Buffer, tokens.Credential | undefined>({
    run: (hashes) => tokens.findByHashes(db, hashes),
    itemsMax: suspectsPerBatchMax,
    queueMax: suspectsWaitingMax,
    gatherMs: suspectsGatherMs,
    overflow: () =>
      new Refusal(
        "resource_exhausted",
        "too many tokens or join codes that were no good come from this address, or begin as this one does; wait, and use one that is",
        { retryAfterMs: suspectsGatherMs },
      ),
  });
  /** By hash of an invalid token, the time until which the result is cached. */
  const bad = new Map<string, number>();

  function isBad(key: string): boolean {
    return performance.now() < (bad.get(key) ?? 0);
  }

  function remember(key: string): void {
    bad.delete(key);
    if (bad.size >= badEntriesMax) bad.delete(bad.keys().next().value!);
    bad.set(key, performance.now() + cacheMs);
  }

  async function authenticate(
    authorization: string | null | undefined,
    { isSuspect } = { isSuspect: false },
  ): Promise<Principal> {
    const secret = secretOf(authorization);
    if (!secret) refuse("unauthenticated", "a token is needed: authorization: Bearer pin_…");
    if (!tokenKind(secret))
      refuse("unauthenticated", "the token is malformed; it may have been cut or mistyped");
    const hash = secretHash(secret);
    const key = keyOf(hash);

    const known = cache.get(key);
    if (known && performance.now() < known.until) return note(known.principal);

    if (isBad(key)) refuse("unauthenticated", noGood);

    const before = generation;
    const credential = await (isSuspect ? suspects : lookups).add(hash);
    if (!credential || credential.isRevoked || (credential.expiresInMs ?? 1) <= 0) {
      cache.delete(key);
      // An expired token may be prolonged; an unknown or revoked token never becomes valid.
      if (!credential || credential.isRevoked) remember(key);
      refuse("unauthenticated", noGood);
    }
    const principal = principalFrom(credential);
    cache.delete(key);
    // The end of a move is seen at once.
    if (before === generation && !principal.leaving) {
      if (cache.size >= cacheEntriesMax) cache.delete(cache.keys().next().value!);
      cache.set(key, {
        principal,
        until: performance.now() + Math.min(cacheMs, credential.expiresInMs ?? cacheMs),
      });
    }
    return note(principal);
  }

  function note(principal: Principal): Principal {
    if (uses.size < usesMax) {
      uses.set(principal.tokenId, { orgId: principal.orgId, tokenId: principal.tokenId });
    }
    return principal;
  }

  async function flush(): Promise<void> {
    const batch = [...uses.values()];
    uses = new Map();
    try {
      await tokens.recordUse(db, batch);
    } catch (error) {
      // The last use is only shown to people: the next flush writes a later use.
      log.warn({ err: error, tokens: batch.length }, "the last use of tokens was not written");
    }
  }

  let flushing = Promise.resolve();
  const timer = setInterval(() => {
    // One flush after another: closing waits for the running flush.
    flushing = flushing.then(flush);
  }, usesFlushMs).unref();

  return {
    authenticate,
    isUnknown(authorization) {
      const secret = secretOf(authorization);
      if (secret === undefined || tokenKind(secret) === undefined) return false;
      const key = keyOf(secretHash(secret));
      return !cache.has(key) && !isBad(key);
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
    authCache: {
      forget(tokenId) {
        generation++;
        for (const [key, entry] of cache) {
          if (entry.principal.tokenId === tokenId) cache.delete(key);
        }
      },
      forgetPerson({ orgId, userId }) {
        generation++;
        for (const [key, { principal }] of cache) {
          if (principal.orgId === orgId && principal.userId === userId) cache.delete(key);
        }
      },
    },
    flush,
    async close() {
      clearInterval(timer);
      await flushing;
      await flush();
    },
  };
}

function secretOf(authorization: string | null | undefined): string | undefined {
  return /^bearer +(\S+)$/i.exec(authorization ?? "")?.[1];
}

function keyOf(hash: Buffer): string {
  return hash.toString("base64");
}

/** Refuses a principal whose org is not here. */
export function requireHere({ leaving }: Principal): void {
  if (leaving) throw refusalOf(leaving);
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

function principalFrom(credential: tokens.Credential): Principal {
  const { orgId, tokenId, kind, userId, deviceId } = credential;
  const granted = credential.scopes.filter((scope): scope is Scope => Object.hasOwn(brings, scope));
  return {
    orgId,
    actor: actorOf(credential),
    tokenId,
    kind,
    leaving: credential.leaving,
    scopes: new Set(granted.flatMap((scope) => brings[scope])),
    userId,
    deviceId,
    isEverywhere:
      userId !== null && kind === "pat"
        ? credential.role === "owner" || credential.role === "admin"
        : kind !== "dev" && (granted.includes("admin") || credential.allDevices),
  };
}

function actorOf({ kind, tokenId, userId, deviceId }: tokens.Credential): string {
  switch (kind) {
    case "pat":
      return userId ? `user:${userId}` : `service:${tokenId}`;
    case "dev":
      return `device:${deviceId}`;
    case "svc":
      return `service:${tokenId}`;
  }
}
