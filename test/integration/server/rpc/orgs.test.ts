/** Orgs, members and dependent resources, through real replicas. */
import { randomUUID } from "node:crypto";
import { durationFromMs, timestampDate } from "@bufbuild/protobuf/wkt";
import * as grpc from "@grpc/grpc-js";
import { sql } from "kysely";
import { expect, test } from "vitest";
import { Os } from "#gen/pinion/v1/device_pb.js";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, dial, enrolDevice } from "../../../support/device.ts";
import { asSeenWith, inNewOrg, inOneNewOrg, type TestReplica } from "../../../support/server.ts";
import { useReplicasWith } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const keys = { OPENAI_API_KEY: "sk-o", ANTHROPIC_API_KEY: "sk-a", GROQ_API_KEY: "" };
const replicas = useReplicasWith(keys, database, "one", "two");

const as = (replica: TestReplica, token: string) => asSeenWith(replica, token).clients;

const textOf = (value: unknown) =>
  JSON.stringify(value, (_key, inner) => (typeof inner === "bigint" ? String(inner) : inner));

test("an org begins with an owner, a default agent and a token that works; the token is shown once", async () => {
  const replica = replicas.one;
  const { org, owner, secret } = await replica.clients.orgs.createOrg({
    orgId: "acme",
    name: "Acme",
    ownerEmail: "Ada@Acme.example",
    ownerName: "Ada",
  });
  expect(org).toMatchObject({ id: "acme", name: "Acme", defaultAgentId: "pinion-default" });
  expect(owner).toMatchObject({ name: "Ada", email: "ada@acme.example", role: MemberRole.OWNER });

  const acme = as(replica, secret);
  expect((await acme.orgs.getOrg({})).org).toEqual(org);
  expect((await acme.orgs.listMembers({})).members).toEqual([owner]);
  const { rows } = await sql<{ org_id: string; owner_id: string; settings: { identity: string } }>`
    select a.org_id, a.owner_id, r.settings from agent a
    join agent_revision r on (r.org_id, r.agent_id, r.version) = (a.org_id, a.id, a.version)
    where a.org_id = 'acme'`.execute(database.db);
  expect(rows).toMatchObject([
    { owner_id: owner!.userId, settings: { installedProviders: ["anthropic", "openai"] } },
  ]);
  expect(rows[0]!.settings.identity).toContain("If you lack history or context, say so; do not invent.");
  const told = [await acme.events.listEvents({}), await acme.tokens.listTokens({}), rows];
  for (const hidden of [secret, "sk-o", "sk-a"]) expect(textOf(told)).not.toContain(hidden);
  // The operator's org shows no event of the new org.
  expect(textOf(await replica.clients.events.listEvents({}))).not.toContain("acme");
});

test("who is added by an address is one person in all orgs, and another role is no other member", async () => {
  const replica = await inNewOrg(replicas.one);
  const { owner, secret } = await replicas.one.clients.orgs.createOrg({
    orgId: "second",
    name: "Second",
    ownerEmail: "ada@second.example",
  });
  const asked = { email: "ADA@second.example", role: MemberRole.MEMBER };
  const added = await replica.clients.orgs.addMember(asked);
  expect(added).toMatchObject({ member: { userId: owner!.userId }, secret: "" });
  await replica.clients.orgs.addMember({ ...asked, role: MemberRole.ADMIN });
  const { members } = await replica.clients.orgs.listMembers({});
  expect(members.map((member) => member.role).sort()).toEqual([MemberRole.OWNER, MemberRole.ADMIN]);
  expect((await as(replica, secret).orgs.listMembers({})).members).toHaveLength(1);
});

test("a first token is for who joins the org, and good in that org alone: nobody gets one of a member", async () => {
  const replica = await inNewOrg(replicas.one);
  const { orgs: local } = replica.clients;
  const acme = await inNewOrg(replicas.one);
  const [ada] = (await acme.clients.orgs.listMembers({})).members;
  const asked = { email: "bob@x.example", role: MemberRole.MEMBER, tokenScopes: ["read"] };
  const { member, secret } = await local.addMember(asked);
  expect((await as(replica, secret).orgs.getOrg({})).org!.id).toBe(replica.orgId);
  await expect(as(replica, secret).orgs.addMember(asked)).rejects.toMatchObject({
    reason: "permission_denied",
  });

  const before = await replica.clients.tokens.listTokens({});
  const refused = { reason: "failed_precondition", message: expect.stringContaining("a member already") };
  await expect(local.addMember(asked)).rejects.toMatchObject(refused);
  await expect(local.addMember({ ...asked, role: MemberRole.ADMIN })).rejects.toMatchObject(refused);
  expect(await replica.clients.tokens.listTokens({})).toEqual(before);
  const { members } = await local.listMembers({});
  expect(members.map(({ role }) => role).sort()).toEqual([MemberRole.OWNER, MemberRole.MEMBER]);

  // A member of another org gets a token for this org, without access to the other org.
  const added = await local.addMember({ ...asked, email: ada!.email.toUpperCase(), tokenScopes: ["write"] });
  const here = as(replica, added.secret);
  expect((await here.orgs.getOrg({})).org!.id).toBe(replica.orgId);
  const theirs = (await acme.clients.tokens.listTokens({})).tokens;
  expect(theirs).toHaveLength(1);
  await expect(here.tokens.rotateToken({ tokenId: theirs[0]!.id })).rejects.toMatchObject({
    reason: "not_found",
  });

  await local.removeMember({ userId: member!.userId });
  expect((await local.addMember(asked)).secret).not.toBe("");
});

test("an org made for somebody who is known: the token is good in the new org alone", async () => {
  const replica = replicas.one;
  const { orgs: local } = replica.clients;
  const ask = (orgId: string) => local.createOrg({ orgId, name: orgId, ownerEmail: "ada@known.example" });
  const [acme, globex] = [await ask("known"), await ask("globex")];
  expect(globex.owner!.userId).toBe(acme.owner!.userId);
  const [first, second] = [as(replica, acme.secret), as(replica, globex.secret)];
  const laptop = await enrolDevice(first, "ada's laptop");
  const { tokens: theirs } = await first.tokens.listTokens({});

  expect((await second.orgs.getOrg({})).org!.id).toBe("globex");
  expect((await second.fleet.listDevices({})).devices).toEqual([]);
  expect((await second.tokens.listTokens({})).tokens).toHaveLength(1);
  const missing = { reason: "not_found" };
  await expect(second.fleet.getDevice({ deviceId: laptop.deviceId })).rejects.toMatchObject(missing);
  for (const { id: tokenId } of theirs) {
    await expect(second.tokens.rotateToken({ tokenId })).rejects.toMatchObject(missing);
    await expect(second.tokens.revokeToken({ tokenId })).rejects.toMatchObject(missing);
  }
  expect((await first.tokens.listTokens({})).tokens).toHaveLength(theirs.length);
  // The log of the new org names the creator of the token.
  const made = (await second.events.listEvents({ kinds: ["token.created"] })).events[0]!;
  const operator = (await local.listMembers({})).members[0]!;
  expect(made).toMatchObject({ actor: `user:${operator.userId}`, data: { user_id: globex.owner!.userId } });
});

test("an org keeps an owner, also when two of them remove each other at once", async () => {
  const replica = await inNewOrg(replicas.one);
  const { clients, orgId } = replica;
  const [first] = (await clients.orgs.listMembers({})).members;
  await expect(clients.orgs.removeMember({ userId: first!.userId })).rejects.toMatchObject({
    reason: "failed_precondition",
  });
  const { member: second, secret } = await clients.orgs.addMember({
    email: "b@x.example",
    role: MemberRole.OWNER,
    tokenScopes: ["admin"],
  });
  const outcomes = await Promise.allSettled([
    clients.orgs.removeMember({ userId: second!.userId }),
    as(replica, secret).orgs.removeMember({ userId: first!.userId }),
  ]);
  expect(outcomes.map((outcome) => outcome.status).sort()).toEqual(["fulfilled", "rejected"]);
  const left = await database.db.selectFrom("member").select("role").where("org_id", "=", orgId).execute();
  expect(left).toEqual([{ role: "owner" }]);
});

test("a member who is removed loses tokens, streams, pins and runs, on every replica; others keep theirs", async () => {
  const { one, two } = await inOneNewOrg(replicas);
  const { member, secret } = await one.clients.orgs.addMember({
    email: "bob@x.example",
    role: MemberRole.MEMBER,
    tokenScopes: ["read", "write"],
  });
  const bob = as(two, secret);
  const laptop = await enrolDevice(bob, "bob's laptop");
  const mine = await enrolDevice(one.clients, "mine");
  const stream = await connect(two.url, laptop);
  const make = async (deviceId: string) =>
    (
      await one.clients.watchers.createWatcher({
        slug: `w-${randomUUID().slice(0, 8)}`,
        spec: { name: "w", prompt: "p", deviceId },
      })
    ).watcher!;
  const [his, kept] = [await make(laptop.deviceId), await make(mine.deviceId)];
  const { run } = await one.clients.watchers.triggerWatcher({ watcherId: his.id });
  await stream.next("assignment");
  const { joinCode } = await bob.fleet.createJoinCode({});

  const answer = await one.clients.orgs.removeMember({ userId: member!.userId });
  expect(answer).toMatchObject({ tokensRevoked: 2, runsCancelled: 1 });
  expect((await stream.ended).code).toBe(grpc.status.UNAUTHENTICATED);
  await expect(bob.orgs.getOrg({})).rejects.toMatchObject({ reason: "unauthenticated" });
  const refused = dial(two.url, laptop.token);
  refused.hello(laptop);
  expect((await refused.ended).code).toBe(grpc.status.UNAUTHENTICATED);
  expect((await one.clients.runs.getRun({ runId: run!.id })).run!.status).toBe(RunStatus.CANCELLED);
  const after = (await one.clients.watchers.getWatcher({ watcherId: his.id })).watcher!;
  expect(after).toMatchObject({ status: WatcherStatus.NO_EXECUTOR, spec: { deviceId: "" } });
  expect((await one.clients.watchers.getWatcher({ watcherId: kept.id })).watcher).toEqual(kept);

  // No work is pinned to his device any more, and his join codes no longer enrol.
  await expect(make(laptop.deviceId)).rejects.toMatchObject({ reason: "failed_precondition" });
  const enrol = { joinCode, installId: randomUUID(), label: "x", os: Os.LINUX };
  await expect(one.clients.device.enroll(enrol)).rejects.toMatchObject({ reason: "unauthenticated" });
  // A new enrolment by a member makes the device valid again.
  const { joinCode: another } = await one.clients.fleet.createJoinCode({});
  await one.clients.device.enroll({ ...enrol, joinCode: another, installId: laptop.installId });
  expect(await make(laptop.deviceId)).toBeDefined();
});

test("a token that is rotated has a successor at once, and itself stays good for the overlap and no longer", async () => {
  const replica = await inNewOrg(replicas.one);
  const { tokens } = replica.clients;
  const made = await tokens.createToken({
    kind: TokenKind.SVC,
    label: "ci",
    scopes: ["read", "write"],
    expiresIn: durationFromMs(3_600_000),
  });
  const rotated = await tokens.rotateToken({ tokenId: made.token!.id });
  const { token, predecessor } = rotated;
  expect(token).toMatchObject({ kind: TokenKind.SVC, label: "ci", scopes: ["read", "write"] });
  expect(token!.id).not.toBe(made.token!.id);
  const minutesLeft = (at: { expiresAt?: Parameters<typeof timestampDate>[0] }) =>
    Math.round((timestampDate(at.expiresAt!).getTime() - Date.now()) / 60_000);
  expect([minutesLeft(token!), minutesLeft(predecessor!)]).toEqual([60, 10]);
  const [old, next] = [as(replica, made.secret), as(replica, rotated.secret)];
  await old.orgs.getOrg({});
  await next.orgs.getOrg({});

  // An overlap of zero ends the old token now; an overlap longer than the token's life does not
  // lengthen the life.
  const again = await tokens.rotateToken({ tokenId: token!.id, overlap: durationFromMs(0) });
  await expect(next.orgs.getOrg({})).rejects.toMatchObject({ reason: "unauthenticated" });
  await expect(tokens.rotateToken({ tokenId: token!.id })).rejects.toMatchObject({
    reason: "failed_precondition",
  });
  const long = await tokens.rotateToken({
    tokenId: again.token!.id,
    overlap: durationFromMs(86_400_000),
  });
  expect(minutesLeft(long.predecessor!)).toBe(60);
  const told = [await tokens.listTokens({}), await replica.clients.events.listEvents({})];
  for (const { secret } of [rotated, again, long]) expect(textOf(told)).not.toContain(secret);
});

test("a person's token is rotated by that person alone, and none by who may do less", async () => {
  const replica = await inNewOrg(replicas.one);
  const { clients } = replica;
  const added = await clients.orgs.addMember({
    email: "bob@x.example",
    role: MemberRole.MEMBER,
    tokenScopes: ["write"],
  });
  const bob = as(replica, added.secret);
  const { tokens } = await clients.tokens.listTokens({});
  const his = tokens.find((token) => token.userId === added.member!.userId)!;
  const admins = tokens.find((token) => token.scopes.includes("admin"))!;
  const refused = { reason: "permission_denied" };
  await expect(clients.tokens.rotateToken({ tokenId: his.id })).rejects.toMatchObject(refused);
  await expect(bob.tokens.rotateToken({ tokenId: admins.id })).rejects.toMatchObject(refused);
  expect((await bob.tokens.rotateToken({ tokenId: his.id })).token).toMatchObject({ userId: his.userId });
});

test("a device's successor token is the same device, and both hold a stream during the overlap", async () => {
  const replica = await inNewOrg(replicas.one);
  const device = await enrolDevice(replica.clients);
  const { tokens } = await replica.clients.tokens.listTokens({});
  const its = tokens.find((token) => token.deviceId === device.deviceId)!;
  const { secret, token } = await replica.clients.tokens.rotateToken({ tokenId: its.id });
  expect(token).toMatchObject({ kind: TokenKind.DEV, deviceId: device.deviceId, scopes: ["device:run"] });
  const before = await connect(replica.url, device);
  const after = await connect(replica.url, { ...device, token: secret });
  expect(after.welcome.deviceId).toBe(before.welcome.deviceId);
  expect(after.welcome.sessionEpoch).toBeGreaterThan(before.welcome.sessionEpoch);
});

test("a stream ends with its token, also if nobody tells the replica that the token has ended", async () => {
  const replica = await inNewOrg(replicas.one);
  const [rotated, revoked, good] = [
    await enrolDevice(replica.clients),
    await enrolDevice(replica.clients),
    await enrolDevice(replica.clients),
  ];
  const streams = {
    rotated: await connect(replica.url, rotated),
    revoked: await connect(replica.url, revoked),
    good: await connect(replica.url, good),
  };
  const { tokens } = await replica.clients.tokens.listTokens({});
  const its = tokens.find((token) => token.deviceId === rotated.deviceId)!;
  await replica.clients.tokens.rotateToken({ tokenId: its.id, overlap: durationFromMs(0) });
  await sql`update token set revoked_at = now() where device_id = ${revoked.deviceId}`.execute(database.db);
  expect((await streams.rotated.ended).code).toBe(grpc.status.UNAUTHENTICATED);
  expect((await streams.revoked.ended).code).toBe(grpc.status.UNAUTHENTICATED);
  await streams.good.beat();
});

test("twenty devices that register at once on two replicas bring one default watcher; deleted, it stays so", async () => {
  const { one, two } = await inOneNewOrg(replicas);
  const { clients } = one;
  const enrol = async (at: TestReplica, os: Os) => {
    const { joinCode } = await clients.fleet.createJoinCode({});
    return () => at.clients.device.enroll({ joinCode, installId: randomUUID(), label: "box", os });
  };
  const list = async () => (await clients.watchers.listWatchers({})).watchers;
  // Neither a phone nor a browser brings a default watcher.
  for (const os of [Os.IOS, Os.ANDROID, Os.BROWSER]) {
    await (await enrol(one, os))();
  }
  expect(await list()).toEqual([]);

  const enrolments = await Promise.all(
    Array.from({ length: 20 }, (_, i) => enrol(i % 2 ? two : one, Os.LINUX)),
  );
  const enrolled = await Promise.all(enrolments.map((start) => start()));
  expect(new Set(enrolled.map((device) => device.deviceId)).size).toBe(20);
  const found = await list();
  expect(found).toMatchObject([{ slug: "daily-checkin", spec: { schedule: "0 9 * * *" } }]);
  expect(enrolled.map((device) => device.deviceId)).toContain(found[0]!.spec!.deviceId);
  expect(found[0]!.spec!.prompt).toContain("If you lack history or context, say so; do not invent.");

  await clients.watchers.deleteWatcher({ watcherId: found[0]!.id });
  await (await enrol(two, Os.MACOS))();
  expect(await list()).toEqual([]);
});

test("a phone that says it runs what only a desktop can is refused, and told what it may say", async () => {
  const replica = await inNewOrg(replicas.one);
  const { joinCode } = await replica.clients.fleet.createJoinCode({});
  const installId = randomUUID();
  const { deviceId, token } = await replica.clients.device.enroll({
    joinCode,
    installId,
    label: "phone",
    os: Os.IOS,
  });
  const phone = { deviceId, token, installId, label: "phone" };
  const say = async (hello: { agentKinds: string[]; capabilities?: string[]; os?: Os }) => {
    const stream = dial(replica.url, token);
    stream.hello(phone, { os: Os.IOS, ...hello });
    return stream.ended;
  };
  expect(await say({ agentKinds: ["chat", "claude-code"] })).toMatchObject({
    code: grpc.status.PERMISSION_DENIED,
    details: expect.stringContaining('"claude-code"; it may have chat, shortcut, notify'),
  });
  expect(await say({ agentKinds: [], capabilities: ["shell"] })).toMatchObject({
    code: grpc.status.PERMISSION_DENIED,
    details: expect.stringContaining('capability "shell"'),
  });
  // A hello with a token that is bound to a device does not change the system of the device.
  expect(await say({ agentKinds: ["claude-code"], os: Os.LINUX })).toMatchObject({
    code: grpc.status.PERMISSION_DENIED,
    details: expect.stringContaining("enrolled as ios"),
  });
  const { device } = await replica.clients.fleet.getDevice({ deviceId });
  expect(device).toMatchObject({ agentKinds: [], capabilities: [], os: Os.IOS });
  const welcomed = await connect(replica.url, phone, {
    os: Os.IOS,
    agentKinds: ["chat"],
    capabilities: ["notification"],
  });
  expect(welcomed.welcome.deviceId).toBe(deviceId);
});
