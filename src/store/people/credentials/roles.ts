/**
 * The rights of a person's role. Pure.
 *
 * - Only an owner appoints, demotes or removes owners; admins manage admins and members. A service
 *   with the scope "admin" has an admin's rights, and so has Pinion itself without a caller.
 * - A person's token has no scope above the role: a member's token never has "admin".
 */
import { refuse } from "../../../errors.ts";
import type { Role } from "../../pg/schema/schema-people.ts";

const beyond: Record<Role, readonly string[]> = { owner: [], admin: [], member: ["admin"] };
/** The scopes included in a higher scope; they stay when the higher scope is removed. */
const brought = ["read", "write"];

/** The first of the scopes above the role. */
export function findScopeBeyond(role: Role, scopes: readonly string[]): string | undefined {
  return scopes.find((scope) => beyond[role].includes(scope));
}

/**
 * The scopes that a token keeps under the role: instead of a scope above the role, its included
 * scopes.
 */
export function cutScopes(role: Role, scopes: readonly string[]): string[] {
  if (!findScopeBeyond(role, scopes)) return [...scopes];
  return [...new Set([...scopes.filter((scope) => !beyond[role].includes(scope)), ...brought])].sort();
}

/** Refuses with `permission_denied` scopes above the role. */
export function requireScopes(role: Role, scopes: readonly string[], field: string): void {
  const scope = findScopeBeyond(role, scopes);
  if (!scope) return;
  refuse(
    "permission_denied",
    `a token of a person with the role "${role}" cannot have the scope "${scope}"; leave it out, or have an owner or admin change the role`,
    { field },
  );
}

/**
 * Refuses with `permission_denied` a caller who is no longer an owner or admin, whatever an earlier
 * lookup of the token found.
 */
export function requireAdmin(caller: Role | null): void {
  if (caller === "member") refuse("permission_denied", 'the token lacks the scope "admin"');
}

/**
 * Refuses with `permission_denied` a caller who may not change a member's role from `from` to `to`;
 * undefined: no member. `caller`: the caller's role; null for a service.
 */
export function requireMayManage(
  caller: Role | null,
  { from, to }: { from: Role | undefined; to: Role | undefined },
): void {
  requireAdmin(caller);
  if (caller === "owner" || (from !== "owner" && to !== "owner")) return;
  refuse(
    "permission_denied",
    from === to
      ? "only an owner may change an owner"
      : "only an owner may make, demote or remove an owner; ask one of them",
  );
}
