import { durationFromMs } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import { LoginState, type SignInService } from "#gen/pinion/v1/sign_in_pb.js";
import { refuse } from "../../errors.ts";
import * as callers from "../../store/people/credentials/callers.ts";
import { cutScopes } from "../../store/people/credentials/roles.ts";
import * as codes from "../../store/people/credentials/sign-in-codes.ts";
import * as tokens from "../../store/people/credentials/tokens.ts";
import * as members from "../../store/people/orgs/members.ts";
import { type Db, transaction } from "../../store/pg/database.ts";
import { withCell } from "../../values/ids.ts";
import { peerAddress } from "../access/peer.ts";
import type { Principal } from "../access/principal.ts";
import { principalOf } from "../access/principal.ts";
import type { EventAnnouncer } from "./events.ts";
import { timestampOf } from "./messages/moments.ts";

const loginMs = 10 * 60_000;

const loginIntervalMs = 2_000;

/**
 * Milliseconds that a command stays logged in, unless its person's role or membership ends sooner.
 */
const loginTokenMs = 90 * 24 * 3_600_000;

/** The login of a command: the command shows a code, and a person decides in a browser. */
interface Deps {
  crossOrgDb: Db;
  feed: EventAnnouncer;
  /** The name in tokens and codes; "" for none. */
  cell: string;
}

type Served = ServiceImpl<typeof SignInService>;

export function loginRpcs(
  deps: Deps,
): Pick<Served, "startLogin" | "finishLogin" | "getLogin" | "decideLogin"> {
  const { crossOrgDb } = deps;

  return {
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
      if (!decision?.isConfirmed) return { state: stateOf(decision) };
      const { orgId } = decision;
      const { secret, userName } = await finish(crossOrgDb, deviceCode, found.data.clientName, decision);
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
        state: stateOf(decision),
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
}

/** Uses up the confirmed code, and makes the token of the logged-in command. */
async function finish(
  crossOrgDb: Db,
  deviceCode: string,
  clientName: string,
  { orgId, userId, scopes, makerId }: codes.LinkData,
): Promise<{ secret: string; userName: string }> {
  return transaction(crossOrgDb, async (tx) => {
    const used = await codes.consume(tx, { kind: "login", code: deviceCode });
    if (!used) refuse("unauthenticated", "the login was finished already");
    return callers.whileGood(tx, { orgId, userId, tokenId: makerId }, async (held, { role, expiresInMs }) => {
      const { secret } = await tokens.create(held, {
        orgId,
        actor: `user:${userId}`,
        kind: "pat",
        label: `login: ${clientName}`.slice(0, 100),
        scopes: role ? cutScopes(role, scopes) : scopes,
        userId,
        creatorId: userId,
        // Only an admin's token may outlive the credential that confirmed it.
        expiresInMs: scopes.includes("admin")
          ? loginTokenMs
          : Math.min(loginTokenMs, expiresInMs ?? loginTokenMs),
      });
      const member = await members.find(held, { orgId, userId });
      return { secret, userName: member?.name || (member?.email ?? "") };
    });
  });
}

function stateOf(decision: codes.LoginData["decision"]): LoginState {
  if (!decision) return LoginState.PENDING;
  return decision.isConfirmed ? LoginState.CONFIRMED : LoginState.DENIED;
}

function noLogin(userCode: string): never {
  refuse("not_found", `no command waits with the code ${userCode}; it may be older than 10 minutes`);
}

/**
 * The link data of a person's credential. Refuses with `failed_precondition` a service's
 * credential: a service has no person to sign in.
 */
export function linkOf({ orgId, userId, kind, scopes, tokenId }: Principal): codes.LinkData {
  if (kind !== "pat" || !userId) {
    refuse(
      "failed_precondition",
      "this is no person's token, and only people sign in; use one that a person made for themselves",
    );
  }
  return { orgId, userId, scopes: [...scopes], makerId: tokenId };
}
