import { create } from "@bufbuild/protobuf";
import type { ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import {
  type Member,
  MemberRole,
  MemberSchema,
  type Org,
  OrgSchema,
  type OrgService,
} from "#gen/pinion/v1/org_pb.js";
import { refuse } from "../../errors.ts";
import * as memberAdditions from "../../store/people/member-additions.ts";
import * as memberRemovals from "../../store/people/member-removals.ts";
import * as members from "../../store/people/members.ts";
import * as orgs from "../../store/people/orgs.ts";
import type { Db } from "../../store/pg/database.ts";
import type { Pausing } from "../../store/work/stranded.ts";
import { type Guard, mayGrant, principalOf } from "../access/guard.ts";
import type { EventAnnouncer } from "./events.ts";
import type { FleetDoorbell, FleetScheduler } from "./fleet.ts";
import { timestampOf } from "./moments.ts";
import { idKey, page } from "./page.ts";
import type { WatcherScheduler } from "./watchers.ts";

/** Orgs and members between rows and messages. */

const roleMessages: Record<members.Member["role"], MemberRole> = {
  owner: MemberRole.OWNER,
  admin: MemberRole.ADMIN,
  member: MemberRole.MEMBER,
};
const rolesByMessage = new Map(
  Object.entries(roleMessages).map(([role, message]) => [message, role as members.Member["role"]]),
);

function memberMessage(row: members.Member): Member {
  return create(MemberSchema, {
    userId: row.userId,
    name: row.name,
    email: row.email ?? "",
    role: roleMessages[row.role],
    createdAt: timestampOf(row.createdAt),
  });
}

function orgMessage(row: orgs.Org): Org {
  return create(OrgSchema, {
    id: row.id,
    name: row.name,
    defaultAgentId: row.defaultAgentId ?? "",
    createdAt: timestampOf(row.createdAt),
  });
}

/**
 * `crossOrgDb` is for the two calls that reach beyond the caller's org: a new org, and a person whom another org may
 * know already.
 */
export function orgService(deps: {
  db: Db;
  crossOrgDb: Db;
  doorbell: FleetDoorbell;
  scheduler: FleetScheduler & Pick<WatcherScheduler, "recordDue" | "cancelAllOfWatcher">;
  feed: EventAnnouncer;
  authCache: Guard["authCache"];
  installedProviders: readonly string[];
  publicUrl?: string | undefined;
}): ServiceImpl<typeof OrgService> {
  const { db, crossOrgDb, doorbell, feed } = deps;

  /** Tokens that have ended, or may do less: their streams end, and their next call asks the database. */
  function endAll(tokenIds: readonly string[]): void {
    for (const tokenId of tokenIds) {
      deps.authCache.forget(tokenId);
      doorbell.revoke(tokenId);
    }
  }

  /** Pauses what a person's role or membership carried. */
  function pausing(actor: string): Pausing {
    const { recordDue, cancelAllOfWatcher } = deps.scheduler;
    return { recordDue, cancelRuns: (tx, watcher) => cancelAllOfWatcher(tx, { ...watcher, actor }) };
  }

  return {
    async createOrg(request, context) {
      const principal = principalOf(context);
      if (principal.orgId !== orgs.localOrgId) {
        refuse("permission_denied", `only an admin of the operator's org, "${orgs.localOrgId}", makes orgs`);
      }
      const { org, owner, secret } = await orgs.create(crossOrgDb, {
        orgId: request.orgId,
        name: request.name,
        owner: { email: request.ownerEmail, name: request.ownerName },
        // A person of another org means nothing in the new one's log, but says who it was.
        actor: principal.actor,
        caller: principal,
        requestId: request.requestId,
        installedProviders: deps.installedProviders,
        publicUrl: deps.publicUrl,
      });
      return { org: orgMessage(org), owner: memberMessage(owner), secret };
    },

    async getOrg(_request, context) {
      const { orgId } = principalOf(context);
      return { org: orgMessage(await orgs.get(db, { orgId })) };
    },

    async addMember(request, context) {
      const principal = principalOf(context);
      const { orgId, actor } = principal;
      const missing = request.tokenScopes.find((scope) => !mayGrant(principal, scope));
      if (missing) {
        refuse("permission_denied", `a token without the scope "${missing}" cannot give it to another`);
      }
      const { member, secret, cut, paused } = await memberAdditions.add(crossOrgDb, {
        orgId,
        actor,
        caller: principal,
        requestId: request.requestId,
        email: request.email,
        name: request.name,
        role: rolesByMessage.get(request.role)!,
        tokenScopes: request.tokenScopes,
        keepsServices: request.keepServiceTokens,
        pausing: pausing(actor),
      });
      feed.eventsAppended(orgId);
      paused?.announce();
      // What the role lets the person's other tokens do has changed, too.
      deps.authCache.forgetPerson({ orgId, userId: member.userId });
      endAll(cut.tokenIds);
      return {
        member: memberMessage(member),
        secret: secret ?? "",
        tokensCut: cut.tokenIds.length - cut.servicesCut,
        serviceTokensCut: cut.servicesCut,
        serviceTokensKept: cut.servicesKept,
      };
    },

    async removeMember(request, context) {
      const principal = principalOf(context);
      const { orgId, actor } = principal;
      const departure = await memberRemovals.remove(db, {
        orgId,
        actor,
        caller: principal,
        userId: request.userId,
        endsServices: request.revokeServiceTokens,
        cancelRuns: (tx, options) => deps.scheduler.cancelAllOfDevice(tx, { ...options, actor }),
        pausing: pausing(actor),
      });
      feed.eventsAppended(orgId);
      departure.paused?.announce();
      for (const { announce } of departure.cancelled) announce();
      endAll(departure.tokenIds);
      for (const session of departure.sessions) doorbell.disconnect({ orgId, ...session, reason: "revoked" });
      return {
        tokensRevoked: departure.tokenIds.length,
        serviceTokensKept: departure.serviceTokensKept,
        agentsHandedOver: departure.agentsHandedOver,
        watchersUnpinned: departure.watchersUnpinned,
        agentsUnpinned: departure.agentsUnpinned,
        runsCancelled: departure.cancelled.reduce((sum, { cancelled }) => sum + cancelled, 0),
      };
    },

    async listMembers(request, context) {
      const { orgId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([idKey]),
        keyOf: (row: members.Member) => [row.userId] as [string],
        fetch: (after, limit) => members.list(db, { orgId, limit, afterId: after?.[0] }),
      });
      return { members: rows.map(memberMessage), nextPageToken };
    },
  };
}
