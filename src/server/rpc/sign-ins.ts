import { create, type MessageInitShape } from "@bufbuild/protobuf";
import type { HandlerContext, ServiceImpl } from "@connectrpc/connect";
import { z } from "zod";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import {
  type GetCallerResponseSchema,
  type SignInEntry,
  SignInEntrySchema,
  SignInMethod,
  type SignInRequest,
  type SignInService,
} from "#gen/pinion/v1/sign_in_pb.js";
import { Refusal, refuse } from "../../errors.ts";
import * as callers from "../../store/people/credentials/callers.ts";
import { cutScopes } from "../../store/people/credentials/roles.ts";
import * as codes from "../../store/people/credentials/sign-in-codes.ts";
import * as signIns from "../../store/people/credentials/sign-ins.ts";
import * as members from "../../store/people/orgs/members.ts";
import * as orgs from "../../store/people/orgs/orgs.ts";
import { type Db, transaction } from "../../store/pg/database.ts";
import { withCell } from "../../values/ids.ts";
import { clearedCookie, signInCookie } from "../access/cookies.ts";
import type { Guard } from "../access/guard.ts";
import { peerAddress, reachedOf, userAgentOf } from "../access/peer.ts";
import { type Principal, principalOf, requireHere } from "../access/principal.ts";
import type { EventAnnouncer } from "./events.ts";
import { linkOf, loginRpcs } from "./logins.ts";
import { timestampOf } from "./messages/moments.ts";
import { idKey, page } from "./page.ts";
import type { TokenDoorbell } from "./tokens.ts";

/** As documented in the .proto. */
const linkMs = 5 * 60_000;

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
interface Deps {
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
}

type Served = ServiceImpl<typeof SignInService>;

export function signInService(deps: Deps): Served {
  return { ...signInRpcs(deps), ...signInEntries(deps), ...loginRpcs(deps) };
}

/** The person of the credential, and the maximum life of the browser's sign-in. */
async function credentialOf(
  { guard }: Deps,
  credential: SignInRequest["credential"],
  tx: Db,
): Promise<codes.LinkData & { method: "link" | "token" }> {
  if (credential.case === "linkCode") {
    const code = await codes.consume<codes.LinkData>(tx, { kind: "link", code: credential.value });
    if (!code)
      refuse("unauthenticated", "the link was used already, or is older than 5 minutes; make another one");
    return { ...code.data, method: "link" };
  }
  const principal = await guard.authenticate(`Bearer ${credential.value ?? ""}`);
  requireHere(principal);
  if (!principal.scopes.has("read")) refuse("permission_denied", 'the token lacks the scope "read"');
  return { ...linkOf(principal), method: "token" };
}

async function start(
  deps: Deps,
  request: SignInRequest,
  context: HandlerContext,
): Promise<{ signIn: signIns.SignIn; secret: string }> {
  return transaction(deps.crossOrgDb, async (tx) => {
    const { method, orgId, userId, scopes, makerId } = await credentialOf(deps, request.credential, tx);
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

/** Whether the call came with a credential that may read. */
async function isSignedIn({ guard }: Deps, context: HandlerContext): Promise<boolean> {
  const authorization = context.requestHeader.get("authorization");
  if (authorization === null) return false;
  try {
    return (await guard.authenticate(authorization)).scopes.has("read");
  } catch (error) {
    if (error instanceof Refusal && error.reason === "unauthenticated") return false;
    throw error;
  }
}

/** The org and the person of the call's credential. */
async function callerOf(
  db: Db,
  principal: Principal,
): Promise<MessageInitShape<typeof GetCallerResponseSchema>> {
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
}

async function endOne(deps: Deps, orgId: string, signInId: string, actor: string): Promise<void> {
  await signIns.end(deps.db, { orgId, signInId, actor });
  deps.authCache.forget(signInId);
  deps.doorbell.revoke(signInId);
  deps.feed.eventsAppended(orgId);
}

/** Signing in and out, and who is signed in. */
function signInRpcs(
  deps: Deps,
): Pick<Served, "getSignInOptions" | "createSignInLink" | "signIn" | "signOut" | "getCaller"> {
  const { db, crossOrgDb } = deps;

  return {
    async getSignInOptions(_request, context) {
      return { oidcName: deps.oidcName, signedIn: await isSignedIn(deps, context) };
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
      const { signIn, secret } = await start(deps, request, context);
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
      await endOne(deps, orgId, tokenId, actor);
      context.responseHeader.append("set-cookie", clearedCookie(reachedOf(context.values)));
      return {};
    },

    getCaller: (_request, context) => callerOf(db, principalOf(context)),
  };
}

/** The list of sign-ins of browsers. */
function signInEntries(deps: Deps): Pick<Served, "listSignIns" | "endSignIn"> {
  const { db } = deps;

  return {
    async listSignIns(request, context) {
      const { orgId, userId, tokenId, isEverywhere } = principalOf(context);
      const { rows, nextPageToken } = await page(request, {
        key: z.tuple([idKey]),
        keyOf: (row: signIns.SignIn) => [row.id],
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
      await endOne(deps, orgId, signInId, actor);
      return {};
    },
  };
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
