import { type ContextValues, createContextKey } from "@connectrpc/connect";
import { type Leaving, refusalOf } from "../../store/work/service/org-moves.ts";
import type { TokenKind } from "../../values/ids.ts";

export const scopes = ["device:run", "fleet:run", "read", "write", "admin"] as const;
export type Scope = (typeof scopes)[number];

/** The scopes that each scope includes, itself among them. */
export const brings: Record<Scope, readonly Scope[]> = {
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

/** Refuses a principal whose org is not here. */
export function requireHere({ leaving }: Principal): void {
  if (leaving) throw refusalOf(leaving);
}
