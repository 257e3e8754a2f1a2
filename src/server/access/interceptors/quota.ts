import type { Interceptor } from "@connectrpc/connect";
import { refuse } from "../../../errors.ts";
import type { Noun, Quotas } from "../../../store/people/orgs/quotas.ts";
import type { Db } from "../../../store/pg/database.ts";
import { findPrincipal } from "../principal.ts";
import { nameOf } from "../rules.ts";

/**
 * The noun of which an rpc creates one more. Devices are counted at the creation of a join code:
 * the person who creates the code learns of the limit, and no daemon fails at its last step. A
 * trigger may find an existing run and create none, so the scheduler checks that quota
 * (scheduler/starts/triggers.ts).
 */
export const makes: Readonly<Record<string, Noun>> = {
  "pinion.v1.WatcherService/CreateWatcher": "watchers",
  "pinion.v1.WatcherService/BackfillWatcher": "runs",
  "pinion.v1.RunService/RetryRun": "runs",
  "pinion.v1.TurnService/StartTurn": "turns",
  "pinion.v1.FleetService/CreateJoinCode": "devices",
  "pinion.v1.TokenService/CreateToken": "tokens",
};

/** Runs after the guard: refuses a call beyond the org's quota, before anything is created. */
export function quotaInterceptor(options: { db: Db; quotas: Quotas }): Interceptor {
  const { db, quotas } = options;
  return (next) => async (request) => {
    const noun = makes[nameOf(request.method)];
    // A dry run creates nothing; its answer states the room left.
    const isDryRun = !request.stream && (request.message as { dryRun?: boolean }).dryRun === true;
    const principal = noun && !isDryRun && findPrincipal(request.contextValues);
    if (principal) await quotas.requireRoom(db, noun, principal.orgId);
    return next(request);
  };
}

/** Runs after the guard: limits the open server streams of an org per replica. */
export function streamInterceptor(options: { streamsPerOrg: number }): Interceptor {
  const { streamsPerOrg } = options;
  const open = new Map<string, number>();
  return (next) => async (request) => {
    const principal = findPrincipal(request.contextValues);
    if (!principal || request.method.methodKind !== "server_streaming") return next(request);
    const { orgId } = principal;
    const before = open.get(orgId) ?? 0;
    if (before >= streamsPerOrg) {
      refuse(
        "resource_exhausted",
        `the org holds ${streamsPerOrg} streams open on this replica, which is its limit; close some, or have PINION_STREAMS_PER_ORG raised`,
        { retryAfterMs: 5_000 },
      );
    }
    open.set(orgId, before + 1);
    const leave = () => {
      request.signal.removeEventListener("abort", leave);
      const left = (open.get(orgId) ?? 1) - 1;
      if (left > 0) open.set(orgId, left);
      else open.delete(orgId);
    };
    // A call's signal aborts however the call ends: answered, cut, or left by the caller.
    request.signal.addEventListener("abort", leave, { once: true });
    if (request.signal.aborted) leave();
    return next(request);
  };
}
