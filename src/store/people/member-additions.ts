import { refuse } from "../../errors.ts";
import type { Db } from "../pg/database.ts";
import { transaction } from "../pg/database.ts";
import type { Role } from "../pg/schema.ts";
import * as events from "../work/events.ts";
import * as stranded from "../work/stranded.ts";
import { type Caller, holdToManage } from "./callers.ts";
import { describe } from "./changes.ts";
import * as members from "./members.ts";
import * as requests from "./requests.ts";
import { requireMayManage, requireScopes } from "./roles.ts";
import * as tokens from "./tokens.ts";

export type Arrival = {
  member: members.Member;
  /** Of the first token, if one was asked for. */
  secret: string | undefined;
  /** Tokens that were too strong for the new role: the person's, and of services that the person made. */
  cut: tokens.RoleCut;
  /** The person's watchers on devices that the role alone let them use. */
  paused?: stranded.Stranded;
};

/**
 * Takes a person into the org, or gives a member another role, with the event `member.added` or `member.updated` and,
 * where scopes are given, a first token, which is good in this org alone. A weaker role takes what is above it from the
 * person's tokens, and from the services' that the person made unless `keepsServices`. Refuses with `permission_denied` what the caller's role does not allow (roles.ts) and scopes above the
 * person's role, and with `failed_precondition` to leave the org without an owner, and to make a token of somebody who is a
 * member already: whoever holds it speaks as that person.
 *
 * A repeat of a request id answers with the member as it is, and with `already_exists` if a token was made.
 */
export function add(
  db: Db,
  options: {
    orgId: string;
    email: string;
    name: string;
    role: Role;
    tokenScopes: readonly string[];
    keepsServices?: boolean;
    /** Pauses what stood on the role; absent: nothing can. */
    pausing?: stranded.Pausing;
    actor: string;
    /** Null: Pinion itself. */
    caller: Caller | null;
    requestId: string;
  },
): Promise<Arrival> {
  const { orgId, role, actor, caller, tokenScopes } = options;
  const request = { orgId, actor, rpc: "OrgService/AddMember", requestId: options.requestId };
  return transaction(db, async (tx) => {
    const made = await requests.begin(tx, request);
    if (made) return repeated(tx, orgId, made);
    const userId = await members.ensureUser(tx, options);
    const { owners, target: before, held } = await holdToManage(tx, { orgId, userId, caller });
    requireMayManage(held.role, { from: before, to: role });
    requireScopes(role, tokenScopes, "token_scopes");
    if (tokenScopes.length > 0 && before) {
      refuse(
        "failed_precondition",
        "the person is a member already and makes their own tokens; leave the token's scopes out",
        { field: "token_scopes" },
      );
    }
    if (role !== "owner" && owners.length === 1 && owners[0] === userId) members.refuseLastOwner();
    await tx
      .insertInto("member")
      .values({ org_id: orgId, user_id: userId, role })
      .onConflict((conflict) => conflict.columns(["org_id", "user_id"]).doUpdateSet({ role }))
      .execute();
    // After the role, which whoever makes a token of the person holds: so none is made that this does not see.
    const cut =
      before && before !== role
        ? await tokens.cutToRole(tx, { orgId, userId, role, keepsServices: options.keepsServices ?? false })
        : nothingCut;
    const paused =
      before && before !== role && options.pausing
        ? await stranded.pauseAll(tx, { orgId, actor, of: { sponsor: `user:${userId}` }, ...options.pausing })
        : undefined;
    const issued =
      tokenScopes.length > 0
        ? await tokens.issue(tx, {
            orgId,
            kind: "pat",
            label: "first token",
            scopes: tokenScopes,
            userId,
            creatorId: caller?.userId ?? null,
          })
        : undefined;
    await requests.record(tx, request, { user_id: userId, ...(issued ? { token_id: issued.token.id } : {}) });
    const member = (await members.find(tx, { orgId, userId }))!;
    const entries: Omit<events.NewEvent, "orgId">[] = [];
    if (before !== role) {
      entries.push({
        kind: before ? "member.updated" : "member.added",
        actor,
        data: {
          user_id: userId,
          role,
          ...(before
            ? {
                ...describe({ role: before }, { role }),
                tokens_cut: cut.tokenIds.length - cut.servicesCut,
                service_tokens_cut: cut.servicesCut,
                service_tokens_kept: cut.servicesKept,
              }
            : {}),
        },
      });
    }
    if (issued) {
      entries.push({
        kind: "token.created",
        actor,
        data: { token_id: issued.token.id, kind: "pat", user_id: userId, scopes: [...tokenScopes] },
      });
    }
    await events.append(tx, orgId, entries);
    return { member, secret: issued?.secret, cut, ...(paused ? { paused } : {}) };
  });
}

const nothingCut: tokens.RoleCut = { tokenIds: [], servicesCut: 0, servicesKept: 0 };

async function repeated(
  tx: Db,
  orgId: string,
  made: { user_id?: string; token_id?: string },
): Promise<Arrival> {
  if (made.token_id) tokens.refuseRepeat(made.token_id);
  const member = await members.find(tx, { orgId, userId: made.user_id! });
  return {
    member: member ?? refuse("not_found", `there is no member ${made.user_id}`),
    secret: undefined,
    cut: nothingCut,
  };
}
