/**
 * The permissions of roles, the effects of an ended token or membership, and the results of
 * repeated requests: through real replicas.
 */
import { randomUUID } from "node:crypto";
import { durationFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { sql } from "kysely";
import { expect, test } from "vitest";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import * as members from "../../../../src/store/people/orgs/members.ts";
import { transaction } from "../../../../src/store/pg/database.ts";
import { useDatabase } from "../../../support/database.ts";
import { enrolDevice } from "../../../support/device.ts";
import { untilBlocked } from "../../../support/locks.ts";
import { asSeenWith, inNewOrg, inOneNewOrg, type TestReplica } from "../../../support/server.ts";
import { useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "one", "two");

const as = (replica: TestReplica, token: string) => asSeenWith(replica, token).clients;

/** A new member with a token of these scopes. */
async function join(replica: TestReplica, name: string, role: MemberRole, tokenScopes: string[]) {
  const email = `${name}-${randomUUID().slice(0, 8)}@x.example`;
  const { member, secret } = await replica.clients.orgs.addMember({ email, role, tokenScopes });
  return { userId: member!.userId, email, secret, clients: as(replica, secret) };
}

const denied = { reason: "permission_denied" };
const ended = { reason: "unauthenticated" };

test("only an owner makes, demotes and removes owners; an admin manages admins and members", async () => {
  const replica = await inNewOrg(replicas.one);
  const ada = await join(replica, "ada", MemberRole.ADMIN, ["admin"]);
  const bob = await join(replica, "bob", MemberRole.MEMBER, ["write"]);
  const zoe = await join(replica, "zoe", MemberRole.OWNER, ["admin"]);
  const service = await replica.clients.tokens.createToken({
    kind: TokenKind.SVC,
    label: "ops",
    scopes: ["admin"],
  });
  for (const { orgs } of [ada.clients, as(replica, service.secret)]) {
    const change = (email: string, role: MemberRole) => orgs.addMember({ email, role });
    await expect(change("new@x.example", MemberRole.OWNER)).rejects.toMatchObject(denied);
    await expect(change(bob.email, MemberRole.OWNER)).rejects.toMatchObject(denied);
    await expect(change(zoe.email, MemberRole.MEMBER)).rejects.toMatchObject(denied);
    await expect(orgs.removeMember({ userId: zoe.userId })).rejects.toMatchObject(denied);
    await change(bob.email, MemberRole.ADMIN);
    await change(bob.email, MemberRole.MEMBER);
  }
  await zoe.clients.orgs.addMember({ email: bob.email, role: MemberRole.OWNER });
  await zoe.clients.orgs.addMember({ email: bob.email, role: MemberRole.ADMIN });
  await ada.clients.orgs.removeMember({ userId: bob.userId });
  await zoe.clients.orgs.removeMember({ userId: ada.userId });
});

test("a person's token has no scope above the role; a demotion cuts them on every replica and closes their streams", async () => {
  const { one, two } = await inOneNewOrg(replicas);
  const ask = { email: "eve@x.example", role: MemberRole.MEMBER };
  await expect(one.clients.orgs.addMember({ ...ask, tokenScopes: ["admin"] })).rejects.toMatchObject(denied);
  const ada = await join(one, "ada", MemberRole.ADMIN, ["admin"]);
  const weak = await ada.clients.tokens.createToken({ kind: TokenKind.PAT, label: "w", scopes: ["read"] });
  const there = as(two, ada.secret);
  const stream = there.events.watchEvents({})[Symbol.asyncIterator]();
  await stream.next();
  await there.orgs.addMember({ email: "bob@x.example", role: MemberRole.MEMBER });

  const answer = await one.clients.orgs.addMember({ email: ada.email, role: MemberRole.MEMBER });
  expect(answer.tokensCut).toBe(1);
  const closed = (async () => {
    for (;;) if ((await stream.next()).done) return;
  })();
  await expect(closed).rejects.toMatchObject(ended);
  await expect(there.orgs.addMember({ email: "c@x.example", role: MemberRole.MEMBER })).rejects.toMatchObject(
    denied,
  );
  await expect(
    there.tokens.createToken({ kind: TokenKind.PAT, label: "x", scopes: ["admin"] }),
  ).rejects.toMatchObject(denied);
  const list = (await there.tokens.listTokens({})).tokens.filter((token) => token.userId === ada.userId);
  expect(list.map((token) => token.scopes)).toEqual([["read"], ["read", "write"]]);
  expect(list.some((token) => token.id === weak.token!.id && !token.revokedAt)).toBe(true);
  const [event] = (await one.clients.events.listEvents({ kinds: ["member.updated"] })).events;
  expect(event!.data).toMatchObject({
    user_id: ada.userId,
    changes: { role: { from: "admin", to: "member" } },
    tokens_cut: 1,
  });
});

test("a demotion cuts the tokens of services that the person made, and closes their streams, unless they are to be kept", async () => {
  const { one, two } = await inOneNewOrg(replicas);
  const ada = await join(one, "ada", MemberRole.ADMIN, ["admin"]);
  const make = (scopes: string[]) =>
    ada.clients.tokens.createToken({ kind: TokenKind.SVC, label: "s", scopes });
  const strong = await make(["admin", "fleet:run"]);
  const weak = await make(["write"]);
  const others = await one.clients.tokens.createToken({
    kind: TokenKind.SVC,
    label: "o",
    scopes: ["admin"],
  });
  const member = { email: ada.email, role: MemberRole.MEMBER };
  const kept = await one.clients.orgs.addMember({ ...member, keepServiceTokens: true });
  expect(kept).toMatchObject({ tokensCut: 1, serviceTokensCut: 0, serviceTokensKept: 1 });
  await one.clients.orgs.addMember({ ...member, role: MemberRole.ADMIN });

  const there = as(two, strong.secret);
  const stream = there.events.watchEvents({})[Symbol.asyncIterator]();
  await stream.next();
  const answer = await one.clients.orgs.addMember(member);
  expect(answer).toMatchObject({ tokensCut: 0, serviceTokensCut: 1, serviceTokensKept: 0 });
  const closed = (async () => {
    for (;;) if ((await stream.next()).done) return;
  })();
  await expect(closed).rejects.toMatchObject(ended);
  await expect(there.orgs.addMember({ email: "c@x.example", role: MemberRole.MEMBER })).rejects.toMatchObject(
    denied,
  );
  const { tokens: list } = await there.tokens.listTokens({});
  const scopesOf = (id: string) => list.find((token) => token.id === id)!.scopes;
  expect(scopesOf(strong.token!.id)).toEqual(["fleet:run", "read", "write"]);
  expect(scopesOf(weak.token!.id)).toEqual(["write"]);
  expect(scopesOf(others.token!.id)).toEqual(["admin"]);
  const [event] = (await one.clients.events.listEvents({ kinds: ["member.updated"] })).events;
  expect(event!.data).toMatchObject({ tokens_cut: 0, service_tokens_cut: 1 });
});

test("a token that is made while its person is demoted waits, and is no stronger than the new role", async () => {
  const replica = await inNewOrg(replicas.one);
  const ada = await join(replica, "ada", MemberRole.ADMIN, ["admin"]);
  await ada.clients.orgs.getOrg({});
  let made: Promise<unknown> | undefined;
  await transaction(database.db, async (tx) => {
    await members.lock(tx, { orgId: replica.orgId, userId: ada.userId });
    await sql`update member set role = 'member' where user_id = ${ada.userId} and org_id = ${replica.orgId}`.execute(
      tx,
    );
    made = ada.clients.tokens
      .createToken({ kind: TokenKind.SVC, label: "x", scopes: ["admin"] })
      .catch((error: unknown) => error);
    await untilBlocked(database.db);
  });
  expect(await made).toMatchObject(denied);
});

test("who leaves hands the agents over, and the services' tokens stay and say who made them, or end as well", async () => {
  const replica = await inNewOrg(replicas.one);
  const { clients } = replica;
  const [owner] = (await clients.orgs.listMembers({})).members;
  await join(replica, "zoe", MemberRole.OWNER, ["admin"]);
  const ada = await join(replica, "ada", MemberRole.ADMIN, ["admin"]);
  await ada.clients.agents.createAgent({ agentId: "helper", name: "Helper" });
  const service = { kind: TokenKind.SVC, label: "ci", scopes: ["read"] };
  const kept = await ada.clients.tokens.createToken(service);

  expect(await clients.orgs.removeMember({ userId: ada.userId })).toMatchObject({
    tokensRevoked: 1,
    serviceTokensKept: 1,
    agentsHandedOver: 1,
  });
  expect((await clients.agents.getAgent({ agentId: "helper" })).agent!.ownerId).toBe(owner!.userId);
  const [event] = (await clients.events.listEvents({ kinds: ["agent.updated"] })).events;
  expect(event!.data).toMatchObject({
    agent_id: "helper",
    changed: ["owner_id"],
    changes: { owner_id: { from: ada.userId, to: owner!.userId } },
  });
  await as(replica, kept.secret).orgs.getOrg({});
  const { tokens: list } = await clients.tokens.listTokens({});
  expect(list.find((token) => token.id === kept.token!.id)).toMatchObject({
    creatorId: ada.userId,
    creatorLeft: true,
  });

  const bob = await join(replica, "bob", MemberRole.ADMIN, ["admin"]);
  const gone = await bob.clients.tokens.createToken(service);
  const answer = await clients.orgs.removeMember({ userId: bob.userId, revokeServiceTokens: true });
  expect(answer).toMatchObject({ tokensRevoked: 2, serviceTokensKept: 0 });
  await expect(as(replica, gone.secret).orgs.getOrg({})).rejects.toMatchObject(ended);
});

test("a join code lives no longer than the token it was made with, and dies with it", async () => {
  const replica = await inNewOrg(replicas.one);
  const { token, secret } = await replica.clients.tokens.createToken({
    kind: TokenKind.PAT,
    label: "short",
    scopes: ["write"],
    expiresIn: durationFromMs(120_000),
  });
  const maker = as(replica, secret);
  const { expiresAt } = await maker.fleet.createJoinCode({ expiresIn: durationFromMs(3_600_000) });
  expect(timestampMs(expiresAt!)).toBe(timestampMs(token!.expiresAt!));
  const { joinCode } = await maker.fleet.createJoinCode({});
  await replica.clients.tokens.revokeToken({ tokenId: token!.id });
  const enrol = replica.clients.device.enroll({
    joinCode,
    installId: "x".repeat(16),
    label: "late",
    os: 2,
  });
  await expect(enrol).rejects.toMatchObject({
    ...ended,
    message: expect.stringContaining("revoked or has expired"),
  });
  expect((await replica.clients.fleet.listDevices({})).devices).toEqual([]);
});

test("streams end within 5 s of their token on every replica, also when no word of it arrives", async () => {
  const { one, two } = await inOneNewOrg(replicas);
  const { token, secret } = await one.clients.tokens.createToken({
    kind: TokenKind.PAT,
    label: "watches",
    scopes: ["read"],
  });
  const device = await enrolDevice(one.clients);
  const { watcher } = await one.clients.watchers.createWatcher({
    spec: { name: "W", prompt: "p", deviceId: device.deviceId },
  });
  const { run } = await one.clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  const open = [one, two].flatMap((replica) => {
    const clients = as(replica, secret);
    return [clients.events.watchEvents({}), clients.runs.watchRun({ runId: run!.id })];
  });
  const streams = open.map((stream) => (stream as AsyncIterable<unknown>)[Symbol.asyncIterator]());
  for (const stream of streams) await stream.next();
  // Without a notification: only the row shows the revocation.
  await sql`update token set revoked_at = now() where id = ${token!.id}`.execute(database.db);
  const revokedAt = performance.now();
  for (const stream of streams) {
    const closed = (async () => {
      while (!(await stream.next()).done);
    })();
    await expect(closed).rejects.toMatchObject(ended);
  }
  expect(performance.now() - revokedAt).toBeLessThan(5_000);
});

test("a repeated request makes nothing again, also at the same moment; a secret is not shown twice", async () => {
  // Only the operator's org makes orgs.
  const { one, two } = replicas;
  const { clients } = one;
  const device = await enrolDevice(clients);
  const spec = { name: "W", prompt: "p", deviceId: device.deviceId };
  const requestId = "r-1";
  const made = await Promise.all(
    [one, two, one].map((replica) => replica.clients.watchers.createWatcher({ spec, requestId })),
  );
  expect(new Set(made.map(({ watcher }) => watcher!.id)).size).toBe(1);
  const watcherId = made[0]!.watcher!.id;

  const trigger = () => two.clients.watchers.triggerWatcher({ watcherId, requestId });
  const [first, again] = await Promise.all([trigger(), trigger()]);
  expect(again.run!.id).toBe(first.run!.id);
  await clients.runs.cancelRun({ runId: first.run!.id });
  const later = await trigger();
  expect(later).toMatchObject({
    alreadyQueued: false,
    run: { id: first.run!.id, status: RunStatus.CANCELLED },
  });

  const retry = () => clients.runs.retryRun({ runId: first.run!.id, requestId });
  const retried = (await retry()).run!;
  expect(retried.id).not.toBe(first.run!.id);
  expect((await retry()).run!.id).toBe(retried.id);
  await expect(clients.runs.retryRun({ runId: first.run!.id })).rejects.toMatchObject({
    reason: "failed_precondition",
  });

  const exists = (what: string) => ({ reason: "already_exists", message: expect.stringContaining(what) });
  const ask = { kind: TokenKind.PAT, label: "x", scopes: ["read"], requestId };
  const { token } = await clients.tokens.createToken(ask);
  await expect(two.clients.tokens.createToken(ask)).rejects.toMatchObject(exists(token!.id));
  await clients.fleet.createJoinCode({ requestId });
  await expect(clients.fleet.createJoinCode({ requestId })).rejects.toMatchObject(exists("join code"));
  const person = { email: "ada@x.example", role: MemberRole.MEMBER, requestId };
  const { member } = await clients.orgs.addMember(person);
  expect((await clients.orgs.addMember(person)).member).toEqual(member);
  const org = { orgId: "acme", name: "Acme", ownerEmail: "a@x.example", requestId };
  await clients.orgs.createOrg(org);
  await expect(clients.orgs.createOrg({ ...org, orgId: "other" })).rejects.toMatchObject(exists("acme"));

  // The id is the caller's own, and is forgotten after a day.
  const other = await join(one, "bob", MemberRole.MEMBER, ["write"]);
  expect((await other.clients.tokens.createToken(ask)).token!.id).not.toBe(token!.id);
  await sql`update request set created_at = now() - interval '25 hours'`.execute(database.db);
  expect((await clients.tokens.createToken(ask)).token!.id).not.toBe(token!.id);
});

test("pins stay within an org: another org's device is not found, also of a person who belongs to both", async () => {
  const replica = replicas.one;
  const { clients } = replica;
  const [owner] = (await clients.orgs.listMembers({})).members;
  await sql`update "user" set email = 'me@x.example' where id = ${owner!.userId}`.execute(database.db);
  const acme = as(
    replica,
    (await clients.orgs.createOrg({ orgId: "mine", name: "Mine", ownerEmail: "me@x.example" })).secret,
  );
  const laptop = await enrolDevice(clients, "mine in local");
  const spec = { name: "W", prompt: "p" };
  const missing = { reason: "not_found", field: "spec.device_id" };
  await expect(
    acme.watchers.createWatcher({ spec: { ...spec, deviceId: laptop.deviceId } }),
  ).rejects.toMatchObject(missing);
  const { watcher } = await acme.watchers.createWatcher({ spec });
  const pin = (deviceId: string) =>
    acme.watchers.updateWatcher({
      watcherId: watcher!.id,
      spec: { ...spec, deviceId },
      updateMask: { paths: ["device_id"] },
    });
  await expect(pin(laptop.deviceId)).rejects.toMatchObject(missing);

  // The same installation enrols here as well: another device, with another token.
  const { joinCode } = await acme.fleet.createJoinCode({});
  const here = await acme.device.enroll({
    joinCode,
    installId: laptop.installId,
    label: "mine in acme",
    os: 2,
  });
  expect(here.deviceId).not.toBe(laptop.deviceId);
  expect((await pin(here.deviceId)).watcher!.spec!.deviceId).toBe(here.deviceId);
  const mine = as(replica, laptop.token);
  expect((await mine.device.listMyWatchers({})).watchers.map((it) => it.id)).not.toContain(watcher!.id);
});
