import { create } from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import {
  LoginState,
  type SignInEntry,
  SignInEntrySchema,
  SignInMethod,
  type SignInService,
} from "#gen/pinion/v1/sign_in_pb.js";
import { Refusal, refuse } from "../../errors.ts";
import { withCell } from "../../ids.ts";
import * as callers from "../../store/people/callers.ts";
import * as members from "../../store/people/members.ts";
import * as orgs from "../../store/people/orgs.ts";
import { cutScopes } from "../../store/people/roles.ts";
import * as codes from "../../store/people/sign-in-codes.ts";
import * as signIns from "../../store/people/sign-ins.ts";
import * as tokens from "../../store/people/tokens.ts";
import { type Db, transaction } from "../../store/pg/database.ts";
import { clearedCookie, signInCookie } from "../access/cookies.ts";
import { type Guard, type Principal, principalOf, requireHere } from "../access/guard.ts";
import { peerAddress, reachedOf, userAgentOf } from "../access/peer.ts";
import type { EventAnnouncer } from "./events.ts";
import { timestampOf } from "./moments.ts";
import { idKey, page } from "./page.ts";
import type { TokenDoorbell } from "./tokens.ts";

/** As documented in the .proto. */
const linkMs = 5 * 60_000;
const loginMs = 10 * 60_000;
const loginIntervalMs = 2_000;
/**
 * Milliseconds that a command stays logged in, unless its person's role or membership ends sooner.
 */
const loginTokenMs = 90 * 24 * 3_600_000;

const methodMessages: Record<signIns.SignIn["method"], SignInMethod> = {
  link: SignInMethod.LINK,
  token: SignInMethod.TOKEN,
  oidc: SignInMethod.OIDC,
};
const roleMessages: Record<members.Member["role"], MemberRole> = {
  owner: MemberRole.OWNER,
  admin: MemberRole.ADMIN,
  member: MemberRole.MEMBER,
};

/**
 * `crossOrgDb` is for the calls without a token: the code in the request tells the org. `signInMs`:
 * milliseconds that a browser stays signed in.
 */
export function signInService(deps: {
  db: Db;
  crossOrgDb: Db;
  guard: Pick<Guard, "authenticate">;
  authCache: Guard["authCache"];
  /** The name in tokens and codes; "" for none. */
  cell: string;
  doorbell: TokenDoorbell;
  feed: EventAnnouncer;
  signInMs: number;
  oidcName: string;
}): ServiceImpl<typeof SignInService> {
  const { db, crossOrgDb } = deps;

  /** The person of the credential, and the maximum life of the browser's sign-in. */
  async function credentialOf(
    credential: Parameters<ServiceImpl<typeof SignInService>["signIn"]>[0]["credential"],
    tx: Db,
  ): Promise<codes.LinkData & { method: "link" | "token" }> {
    if (credential.case === "linkCode") {
      const code = await codes.consume<codes.LinkData>(tx, { kind: "link", code: credential.value });
      if (!code)
        refuse("unauthenticated", "the link was used already, or is older than 5 minutes; make another one");
      return { ...code.data, method: "link" };
    }
    const principal = await deps.guard.authenticate(`Bearer ${credential.value ?? ""}`);
    requireHere(principal);
    if (!principal.scopes.has("read")) refuse("permission_denied", 'the token lacks the scope "read"');
    return { ...linkOf(principal), method: "token" };
  }

  async function start(
    request: Parameters<ServiceImpl<typeof SignInService>["signIn"]>[0],
    context: HandlerContext,
  ): Promise<{ signIn: signIns.SignIn; secret: string }> {
    return transaction(crossOrgDb, async (tx) => {
      const { method, orgId, userId, scopes, makerId } = await credentialOf(request.credential, tx);
      // Refuses if the token has ended meanwhile, and locks it against an end until the commit.
      return callers.whileGood(tx, { orgId, userId, tokenId: makerId }, (held, { role }) =>
        signIns.start(held, {
          ...{ orgId, userId, makerId, method },
          scopes: role ? cutScopes(role, scopes) : scopes,
          address: peerAddress(context.values),
          userAgent: userAgentOf(context.requestHeader.get("user-agent")),
          expiresInMs: deps.signInMs,
        }),
      );
    });
  }

  return {
    async getSignInOptions(_request, context) {
      const authorization = context.requestHeader.get("authorization");
      const isGood = (error: unknown) => {
        if (error instanceof Refusal && error.reason === "unauthenticated") return false;
        throw error;
      };
      const signedIn =
        authorization !== null &&
        (await deps.guard
          .authenticate(authorization)
          .then((principal) => principal.scopes.has("read"), isGood));
      return { oidcName: deps.oidcName, signedIn };
    },

    async createSignInLink(request, context) {
      const principal = principalOf(context);
      const { code, expiresAt } = await codes.create(crossOrgDb, {
        kind: "link",
        address: "",
        expiresInMs: linkMs,
        data: linkOf(principal),
      });
      const query = new URLSearchParams({
        code: withCell(code, deps.cell),
        ...(request.place ? { to: request.place } : {}),
      });
      return { path: `/#/sign-in?${query}`, expiresAt: timestampOf(expiresAt) };
    },

    async signIn(request, context) {
      const { signIn, secret } = await start(request, context);
      const lifeMs = signIn.expiresAt
        ? signIn.expiresAt.getTime() - signIn.createdAt.getTime()
        : deps.signInMs;
      context.responseHeader.append(
        "set-cookie",
        signInCookie(reachedOf(context.values), withCell(secret, deps.cell), lifeMs),
      );
      return { signIn: signInMessage(signIn, "") };
    },

    async signOut(_request, context) {
      const { orgId, tokenId, actor } = principalOf(context);
      if (!(await signIns.find(db, { orgId, signInId: tokenId }))) {
        refuse("failed_precondition", "the call was made with a token; `pinion tokens revoke` ends one");
      }
      await endOne(orgId, tokenId, actor);
      context.responseHeader.append("set-cookie", clearedCookie(reachedOf(context.values)));
      return {};
    },

    async getCaller(_request, context) {
      const principal = principalOf(context);
      const { orgId, userId, tokenId } = principal;
      const [org, member, signIn] = await Promise.all([
        orgs.get(db, { orgId }),
        userId ? members.find(db, { orgId, userId }) : undefined,
        signIns.find(db, { orgId, signInId: tokenId }),
      ]);
      return {
        orgId,
        orgName: org.name,
        userId: userId ?? "",
        userName: member ? member.name || (member.email ?? "") : "",
        email: member?.email ?? "",
        role: member ? roleMessages[member.role] : MemberRole.UNSPECIFIED,
        scopes: [...principal.scopes],
        signInId: signIn?.id ?? "",
      };
    },

    async listSignIns(request, context) {
      const { orgId, userId, tokenId, isEverywhere } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([idKey]),
        keyOf: (row: signIns.SignIn) => [row.id] as [string],
        fetch: (before, limit) =>
          signIns.list(db, {
            orgId,
            limit,
            beforeId: before?.[0],
            // A service that is no admin has no sign-ins, and sees none.
            ...(isEverywhere ? {} : { userId: userId ?? tokenId }),
          }),
      });
      return { signIns: rows.map((row) => signInMessage(row, tokenId)), nextPageToken };
    },

    async endSignIn({ signInId }, context) {
      const { orgId, userId, actor, isEverywhere } = principalOf(context);
      const found = await signIns.find(db, { orgId, signInId });
      if (!found || !(isEverywhere || found.userId === userId)) {
        refuse("not_found", `there is no sign-in ${signInId}`);
      }
      await endOne(orgId, signInId, actor);
      return {};
    },

    async startLogin({ clientName }, context) {
      const { code, userCode, expiresAt } = await codes.create(crossOrgDb, {
        kind: "login",
        address: peerAddress(context.values),
        expiresInMs: loginMs,
        data: { clientName },
        hasUserCode: true,
      });
      return {
        deviceCode: withCell(code, deps.cell),
        userCode,
        path: `/#/login?code=${userCode}`,
        expiresAt: timestampOf(expiresAt),
        interval: durationFromMs(loginIntervalMs),
      };
    },

    async finishLogin({ deviceCode }) {
      const found = await codes.find<codes.LoginData>(crossOrgDb, { kind: "login", code: deviceCode });
      if (!found)
        refuse("unauthenticated", "the login is unknown, finished or older than 10 minutes; begin another");
      const { decision } = found.data;
      if (!decision) return { state: LoginState.PENDING };
      if (!decision.isConfirmed) return { state: LoginState.DENIED };
      const { orgId, userId, scopes, makerId } = decision;
      const { secret, userName } = await transaction(crossOrgDb, async (tx) => {
        const used = await codes.consume(tx, { kind: "login", code: deviceCode });
        if (!used) refuse("unauthenticated", "the login was finished already");
        return callers.whileGood(
          tx,
          { orgId, userId, tokenId: makerId },
          async (held, { role, expiresInMs }) => {
            const issued = await tokens.create(held, {
              orgId,
              actor: `user:${userId}`,
              kind: "pat",
              label: `login: ${found.data.clientName}`.slice(0, 100),
              scopes: role ? cutScopes(role, scopes) : scopes,
              userId,
              creatorId: userId,
              // Only an admin's token may outlive the credential that confirmed it.
              expiresInMs: scopes.includes("admin")
                ? loginTokenMs
                : Math.min(loginTokenMs, expiresInMs ?? loginTokenMs),
            });
            const member = await members.find(held, { orgId, userId });
            return { ...issued, userName: member?.name || (member?.email ?? "") };
          },
        );
      });
      deps.feed.eventsAppended(orgId);
      return { state: LoginState.CONFIRMED, secret: withCell(secret, deps.cell), orgId, userName };
    },

    async getLogin({ userCode }) {
      const login = (await codes.findLogin(crossOrgDb, userCode)) ?? noLogin(userCode);
      const { decision, clientName } = login.data;
      return {
        clientName,
        address: login.address,
        startedAt: timestampOf(login.createdAt),
        expiresAt: timestampOf(login.expiresAt),
        state: decision
          ? decision.isConfirmed
            ? LoginState.CONFIRMED
            : LoginState.DENIED
          : LoginState.PENDING,
      };
    },

    async decideLogin({ userCode, confirm }, context) {
      const { orgId, userId, scopes, makerId } = linkOf(principalOf(context));
      const decision = confirm
        ? { isConfirmed: true as const, orgId, userId, scopes, makerId }
        : { isConfirmed: false as const };
      if (await codes.decide(crossOrgDb, { userCode, decision })) return {};
      if (!(await codes.findLogin(crossOrgDb, userCode))) noLogin(userCode);
      refuse("failed_precondition", "somebody has decided on this login already");
    },
  };

  async function endOne(orgId: string, signInId: string, actor: string): Promise<void> {
    await signIns.end(db, { orgId, signInId, actor });
    deps.authCache.forget(signInId);
    deps.doorbell.revoke(signInId);
    deps.feed.eventsAppended(orgId);
  }
}

/**
 * The link data of a person's credential. Refuses with `failed_precondition` a service's
 * credential: a service has no person to sign in.
 */
function linkOf({ orgId, userId, kind, scopes, tokenId }: Principal): codes.LinkData {
  if (kind !== "pat" || !userId) {
    refuse(
      "failed_precondition",
      "this is no person's token, and only people sign in; use one that a person made for themselves",
    );
  }
  return { orgId, userId, scopes: [...scopes], makerId: tokenId };
}

function noLogin(userCode: string): never {
  refuse("not_found", `no command waits with the code ${userCode}; it may be older than 10 minutes`);
}

function signInMessage(row: signIns.SignIn, currentId: string): SignInEntry {
  return create(SignInEntrySchema, {
    id: row.id,
    userId: row.userId,
    userName: row.userName,
    method: methodMessages[row.method],
    address: row.address,
    userAgent: row.userAgent,
    scopes: row.scopes,
    createdAt: timestampOf(row.createdAt),
    expiresAt: timestampOf(row.expiresAt),
    lastUsedAt: timestampOf(row.lastUsedAt),
    current: row.id === currentId,
  });
}
