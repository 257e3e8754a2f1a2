/** People come into an org, get another role in the org, and leave the org. */
import { refuse } from "../errors.ts";
import { announce, type Cancellation, cancelOfDevice } from "../scheduler/endings/cancels.ts";
import * as agents from "../store/agents/agents.ts";
import { describe } from "../store/people/changes.ts";
import { type Caller, holdToManage } from "../store/people/credentials/callers.ts";
import { requireMayManage, requireScopes } from "../store/people/credentials/roles.ts";
import * as tokens from "../store/people/credentials/tokens.ts";
import * as deviceSessions from "../store/people/devices/device-sessions.ts";
import * as grants from "../store/people/devices/grants.ts";
import * as joinCodes from "../store/people/devices/join-codes.ts";
import * as members from "../store/people/orgs/members.ts";
import * as requests from "../store/people/requests.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import * as events from "../store/work/service/events.ts";
import { countCancelled, unpin } from "./devices.ts";
import { announceStranded, lockStake, noneStranded, pauseStranded, type Stranded } from "./stranded.ts";
import type { Surroundings } from "./surroundings.ts";

export type Arrival = {
  member: members.Member;
  /** The secret of the first token, if a first token was requested. */
  secret: string | undefined;
  /**
   * Tokens that were too strong for the new role: the person's, and of services that the person
   * made.
   */
  cut: tokens.RoleCut;
};

type Addition = {
  orgId: string;
  email: string;
  /** The identity of the person, if known by more than the email address. */
  userId?: string;
  name: string;
  role: members.Member["role"];
  tokenScopes: readonly string[];
  keepsServices?: boolean;
  actor: string;
  /** Null: Pinion itself. */
  caller: Caller | null;
  requestId: string;
};

/**
 * Takes a person into the org, or gives a member another role, with the event `member.added` or
 * `member.updated`. If scopes are given, the person gets a first token, which is valid in this org
 * only. A weaker role ends tokens above the role: the person's tokens, and unless `keepsServices`
 * the tokens of services that the person made. Watchers are paused if only the stronger role let
 * the person use their devices.
 *
 * Refuses with `permission_denied` a change that the caller's role does not allow (roles.ts), and
 * scopes above the person's role. Refuses with `failed_precondition` a change after which the org
 * has no owner, and a first token for a person who is a member already, because the token's holder
 * would act as that person. A repeated request id returns the member's current state, and is
 * refused with `already_exists` if the first request made a token.
 */
export async function add(db: Db, addition: Addition, surroundings: Surroundings): Promise<Arrival> {
  const { orgId, actor } = addition;
  const request = { orgId, actor, rpc: "OrgService/AddMember", requestId: addition.requestId };
  const { arrival, stranded } = await transaction(db, async (tx) => {
    const made = await requests.begin(tx, request);
    if (made) return { arrival: await repeated(tx, orgId, made), stranded: noneStranded };
    const userId = addition.userId ?? (await members.ensureUser(tx, addition));
    const before = await requireMayAdd(tx, userId, addition);
    return arrive(tx, { userId, before, addition, request }, surroundings);
  });
  announceStranded(surroundings, stranded);
  return arrival;
}

/** Locks the membership of the person; returns the role before. */
async function requireMayAdd(
  tx: Db,
  userId: string,
  { orgId, role, tokenScopes, caller }: Addition,
): Promise<Addition["role"] | undefined> {
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
  return before;
}

async function arrive(
  tx: Db,
  options: {
    userId: string;
    before: Addition["role"] | undefined;
    addition: Addition;
    request: requests.Request;
  },
  surroundings: Surroundings,
): Promise<{ arrival: Arrival; stranded: Stranded }> {
  const { userId, before, request } = options;
  const { orgId, role, actor, caller, tokenScopes, keepsServices = false } = options.addition;
  await members.setRole(tx, { orgId, userId, role });
  const isMoved = before !== undefined && before !== role;
  // After the role is locked: a new token of the person locks the role, too, so this statement sees
  // every token.
  const cut = isMoved ? await tokens.cutToRole(tx, { orgId, userId, role, keepsServices }) : nothingCut;
  const of = { sponsor: `user:${userId}` };
  const stranded = isMoved ? await pauseStranded(tx, { orgId, actor, of }, surroundings) : noneStranded;
  const issued =
    tokenScopes.length > 0
      ? await tokens.issue(tx, {
          ...{ orgId, kind: "pat", label: "first token", scopes: tokenScopes },
          ...{ userId, creatorId: caller?.userId ?? null },
        })
      : undefined;
  await requests.record(tx, request, { user_id: userId, ...(issued ? { token_id: issued.token.id } : {}) });
  const member = await members.find(tx, { orgId, userId });
  if (!member) throw new Error(`member ${userId} was written and is not there`);
  const moved = {
    ...describe({ role: before }, { role }),
    tokens_cut: cut.tokenIds.length - cut.servicesCut,
    service_tokens_cut: cut.servicesCut,
    service_tokens_kept: cut.servicesKept,
  };
  const entries: Omit<events.NewEvent, "orgId">[] = [];
  if (before !== role) {
    const data = { user_id: userId, role, ...(before ? moved : {}) };
    entries.push({ kind: before ? "member.updated" : "member.added", actor, data });
  }
  if (issued) {
    const data = { token_id: issued.token.id, kind: "pat", user_id: userId, scopes: [...tokenScopes] };
    entries.push({ kind: "token.created", actor, data });
  }
  await events.append(tx, orgId, entries);
  return { arrival: { member, secret: issued?.secret, cut }, stranded };
}

const nothingCut: tokens.RoleCut = { tokenIds: [], servicesCut: 0, servicesKept: 0 };

async function repeated(
  tx: Db,
  orgId: string,
  made: { user_id?: string; token_id?: string },
): Promise<Arrival> {
  if (made.token_id) tokens.refuseRepeat(made.token_id);
  const userId = made.user_id ?? "";
  const member = await members.find(tx, { orgId, userId });
  return {
    member: member ?? refuse("not_found", `there is no member ${userId}`),
    secret: undefined,
    cut: nothingCut,
  };
}

/** What ends when a person leaves an org. */
export type Departure = {
  tokenIds: string[];
  /** Services' tokens that the person made, and that are the org's and stay. */
  serviceTokensKept: number;
  agentsHandedOver: number;
  watchersUnpinned: number;
  agentsUnpinned: number;
  runsCancelled: number;
  /** Streams that are to be closed. */
  sessions: (deviceSessions.Session & { deviceId: string })[];
};

type Leaving = {
  orgId: string;
  userId: string;
  actor: string;
  /** Null: Pinion itself. */
  caller: Caller | null;
  endsServices: boolean;
};

/**
 * Removes a person from the org, with the event `member.removed`. The person's tokens and unused
 * join codes end. Watchers and agents that are pinned to the person's devices are unpinned and show
 * `no_executor`; the live runs on these devices end. The person's watchers on devices of other
 * people are paused. The devices stay in the list, and no watcher can be pinned to such a device
 * until another member enrols the device. The longest-standing owner gets the person's agents, each
 * with the event `agent.updated`. Tokens of services that the person made belong to the org and
 * stay, unless `endsServices`.
 *
 * Refuses with `not_found`, with `permission_denied` a caller who may not remove the person
 * (roles.ts), and with `failed_precondition` the last owner.
 */
export async function remove(db: Db, leaving: Leaving, surroundings: Surroundings): Promise<Departure> {
  const { departure, ended, stranded } = await transaction(db, async (tx) => {
    // The membership is locked before the devices, as in a pin and an enrolment: these wait for the
    // removal, and then see that the member has left.
    const role = await requireMayRemove(tx, leaving);
    return depart(tx, role, leaving, surroundings);
  });
  announceStranded(surroundings, stranded);
  for (const work of ended) announce(surroundings.doorbell, work);
  return departure;
}

async function requireMayRemove(tx: Db, leaving: Leaving): Promise<string> {
  const { userId } = leaving;
  const { owners, target: role, held } = await holdToManage(tx, leaving);
  if (!role) refuse("not_found", `there is no member ${userId}`);
  requireMayManage(held.role, { from: role, to: undefined });
  if (owners.length === 1 && owners[0] === userId) members.refuseLastOwner();
  return role;
}

async function depart(
  tx: Db,
  role: string,
  leaving: Leaving,
  surroundings: Surroundings,
): Promise<{ departure: Departure; ended: Cancellation[]; stranded: Stranded }> {
  const { orgId, userId, actor } = leaving;
  // The devices before their grants and tokens, as in a removal of a device.
  const owned = await deviceSessions.lockOwnedBy(tx, { orgId, userId });
  await grants.lock(tx, { orgId, userId });
  await members.remove(tx, { orgId, userId });
  await joinCodes.removeUnused(tx, { orgId, userId });
  const tokenIds = await tokens.revokeOfPerson(tx, leaving);
  const serviceTokensKept = await tokens.countOfServices(tx, { orgId, creatorId: userId });
  const of = { sponsor: `user:${userId}` };
  const stake = await lockStake(tx, { orgId, of });
  const unpinned = await unpin(tx, {
    ...{ orgId, actor, alsoPaused: stake },
    devices: owned.map(({ id, label }) => ({
      deviceId: id,
      reason: `the owner of device "${label}" left the org`,
    })),
  });
  const stranded = await pauseStranded(tx, { orgId, actor, of }, surroundings);
  // After the devices, runs and watchers, as in a removal of a device.
  const ownerId = await members.findFirstOwner(tx, { orgId });
  const handedOver = await agents.handOver(tx, { orgId, from: userId, to: ownerId });
  const ended: Cancellation[] = [];
  for (const { id: deviceId } of owned) {
    const reason = "the device's owner left the org";
    ended.push(await cancelOfDevice(tx, { orgId, deviceId, reason }, surroundings));
  }
  const counts = {
    tokens_revoked: tokenIds.length,
    service_tokens_kept: serviceTokensKept,
    agents_handed_over: handedOver.length,
    watchers_unpinned: unpinned.watchers.length,
  };
  await events.append(tx, orgId, [
    ...unpinned.watcherEvents,
    ...handedOver.map((agentId) => ({
      kind: "agent.updated",
      actor,
      data: { agent_id: agentId, ...describe({ owner_id: userId }, { owner_id: ownerId }) },
    })),
    ...unpinned.agentEvents,
    { kind: "member.removed", actor, data: { user_id: userId, role, ...counts } },
  ]);
  const departure: Departure = {
    ...{ tokenIds, serviceTokensKept, agentsHandedOver: handedOver.length },
    watchersUnpinned: unpinned.watchers.length,
    agentsUnpinned: unpinned.agentEvents.length,
    runsCancelled: ended.reduce((sum, one) => sum + countCancelled(one), 0),
    sessions: owned.flatMap(({ id, session }) => (session ? [{ ...session, deviceId: id }] : [])),
  };
  return { departure, ended, stranded };
}
