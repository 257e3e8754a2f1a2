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
import * as members from "../../store/people/orgs/members.ts";
import * as orgSecrets from "../../store/people/orgs/org-secrets.ts";
import * as orgs from "../../store/people/orgs/orgs.ts";
import type { Db } from "../../store/pg/database.ts";
import * as usecases from "../../usecases/members.ts";
import type { Surroundings } from "../../usecases/surroundings.ts";
import { withCell } from "../../values/ids.ts";
import type { Guard } from "../access/guard.ts";
import { mayGrant, type Principal, principalOf } from "../access/principal.ts";
import type { EventAnnouncer } from "./events.ts";
import type { FleetDoorbell } from "./fleet.ts";
import { given } from "./messages/given.ts";
import { timestampOf } from "./messages/moments.ts";
import { type SecretSources, secretMessage } from "./messages/secret-message.ts";
import { idKey, page, textKey } from "./page.ts";

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
 * `crossOrgDb` is for the three calls beyond the caller's org: a new org, a person known to
 * another org already, and the list of orgs.
 */
interface Deps {
  db: Db;
  crossOrgDb: Db;
  doorbell: FleetDoorbell;
  /** For the use-cases. */
  surroundings: Surroundings;
  feed: EventAnnouncer;
  authCache: Guard["authCache"];
  /** The name in tokens and codes; "" for none. */
  cell: string;
  installedProviders: readonly string[];
  publicUrl?: string | undefined;
  secrets: SecretSources;
}

type Served = ServiceImpl<typeof OrgService>;

export function orgService(deps: Deps): Served {
  return { ...orgRpcs(deps), ...memberRpcs(deps) };
}

/**
 * Handles ended tokens and tokens with reduced rights: their streams end, and their next call
 * reads the database.
 */
function endAll({ authCache, doorbell }: Deps, tokenIds: readonly string[]): void {
  for (const tokenId of tokenIds) {
    authCache.forget(tokenId);
    doorbell.revoke(tokenId);
  }
}

function orgRpcs(deps: Deps): Pick<Served, "createOrg" | "getOrg" | "listOrgs" | "listSecrets"> {
  const { db, crossOrgDb } = deps;

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
        // The id of another org's person is unknown in the new org's log, but identifies the
        // person.
        actor: principal.actor,
        caller: principal,
        requestId: request.requestId,
        installedProviders: deps.installedProviders,
        publicUrl: deps.publicUrl,
      });
      return { org: orgMessage(org), owner: memberMessage(owner), secret: withCell(secret, deps.cell) };
    },

    async getOrg(_request, context) {
      const { orgId } = principalOf(context);
      return { org: orgMessage(await orgs.get(db, { orgId })) };
    },

    async listOrgs(request, context) {
      const principal = principalOf(context);
      if (principal.orgId !== orgs.localOrgId) {
        refuse("permission_denied", `only an admin of the operator's org, "${orgs.localOrgId}", lists orgs`);
      }
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([textKey]),
        keyOf: (row: orgs.Org) => [row.id],
        fetch: (after, limit) => orgs.list(crossOrgDb, { limit, afterId: after?.[0] }),
      });
      return { orgs: rows.map(orgMessage), nextPageToken };
    },

    async listSecrets(request, context) {
      const { orgId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([textKey, textKey, textKey]),
        keyOf: (row: orgSecrets.SecretRow) => [row.holder, row.holderName, row.field],
        fetch: (after, limit) => orgSecrets.list(db, { orgId, limit, after: after ?? ["", "", ""] }),
      });
      return {
        secrets: rows.map((row) => secretMessage(row, { orgId, ...deps.secrets })),
        nextPageToken,
      };
    },
  };
}

function memberRpcs(deps: Deps): Pick<Served, "addMember" | "removeMember" | "listMembers"> {
  const { db, crossOrgDb, feed, surroundings, doorbell } = deps;

  return {
    async addMember(request, context) {
      const principal = principalOf(context);
      const { orgId, actor } = principal;
      requireMayGive(principal, request.tokenScopes);
      const addition = {
        orgId,
        actor,
        caller: principal,
        requestId: request.requestId,
        email: request.email,
        name: request.name,
        role: given(rolesByMessage.get(request.role), "role"),
        tokenScopes: request.tokenScopes,
        keepsServices: request.keepServiceTokens,
      };
      const { member, secret, cut } = await usecases.add(crossOrgDb, addition, surroundings);
      feed.eventsAppended(orgId);
      // The role has also changed the rights of the person's other tokens.
      deps.authCache.forgetPerson({ orgId, userId: member.userId });
      endAll(deps, cut.tokenIds);
      return {
        member: memberMessage(member),
        secret: withCell(secret ?? "", deps.cell),
        tokensCut: cut.tokenIds.length - cut.servicesCut,
        serviceTokensCut: cut.servicesCut,
        serviceTokensKept: cut.servicesKept,
      };
    },

    async removeMember(request, context) {
      const principal = principalOf(context);
      const { orgId, actor } = principal;
      const { userId, revokeServiceTokens: endsServices } = request;
      const leaving = { orgId, actor, caller: principal, userId, endsServices };
      const departure = await usecases.remove(db, leaving, surroundings);
      feed.eventsAppended(orgId);
      endAll(deps, departure.tokenIds);
      for (const session of departure.sessions) doorbell.disconnect({ orgId, ...session, reason: "revoked" });
      const { tokenIds, sessions: _, ...counts } = departure;
      return { tokensRevoked: tokenIds.length, ...counts };
    },

    async listMembers(request, context) {
      const { orgId } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([idKey]),
        keyOf: (row: members.Member) => [row.userId],
        fetch: (after, limit) => members.list(db, { orgId, limit, afterId: after?.[0] }),
      });
      return { members: rows.map(memberMessage), nextPageToken };
    },
  };
}

function requireMayGive(principal: Principal, scopes: readonly string[]): void {
  const missing = scopes.find((scope) => !mayGrant(principal, scope));
  if (missing) {
    refuse("permission_denied", `a token without the scope "${missing}" cannot give it to another`);
  }
}
