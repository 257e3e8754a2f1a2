/** The audit log: the author of a write, the origin, and the changes. */
import http from "node:http";
import { createClients } from "@pinion/client";
import { expect, onTestFinished, test } from "vitest";
import type { Event } from "#gen/pinion/v1/event_pb.js";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import * as events from "../../../../src/store/work/service/events.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { hold, untilBlocked } from "../../../support/locks.ts";
import { inNewOrg, inOneNewOrg, startTestReplica, type TestReplica } from "../../../support/server.ts";
import { startWork, takeOn, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "one", "two");

async function listEvents(replica: TestReplica, ...kinds: string[]): Promise<Event[]> {
  return (await replica.clients.events.listEvents({ kinds, pageSize: 500 })).events;
}

/** Creates a token over Connect and JSON, with additional headers; returns the call's id. */
function createToken(replica: TestReplica, label: string, headers: Record<string, string>): Promise<string> {
  return new Promise((resolve, reject) => {
    const request = http.request(
      `${replica.url}/pinion.v1.TokenService/CreateToken`,
      {
        method: "POST",
        headers: { "content-type": "application/json", authorization: `Bearer ${replica.token}`, ...headers },
      },
      (response) => {
        response.resume().on("end", () => {
          if (response.statusCode === 200) resolve(String(response.headers["x-request-id"]));
          else reject(new Error(`status ${response.statusCode}`));
        });
      },
    );
    request.on("error", reject);
    request.end(JSON.stringify({ kind: "TOKEN_KIND_PAT", label, scopes: ["read"] }));
  });
}

const sourceOf = async (replica: TestReplica, label: string) =>
  (await listEvents(replica, "token.created")).find((event) => event.data!.label === label)!.source!;

test("an event says from where its call came: address, token, client and the call's id", async () => {
  const replica = await inNewOrg(replicas.one);
  const requestId = await createToken(replica, "plain", {
    "user-agent": `curl/8\t${"x".repeat(500)}`,
    "x-forwarded-for": "203.0.113.9",
  });
  const source = await sourceOf(replica, "plain");
  expect(source).toMatchObject({ address: "127.0.0.1", requestId });
  expect(source.userAgent).toBe(`curl/8${"x".repeat(194)}`);
  const { tokens } = await replica.clients.tokens.listTokens({});
  expect(tokens.map((token) => token.id)).toContain(source.tokenId);
  expect(JSON.stringify(source)).not.toContain(replica.token);

  expect(await createToken(replica, "named", { "x-request-id": "my-call:1" })).toBe("my-call:1");
  expect((await sourceOf(replica, "named")).requestId).toBe("my-call:1");
  expect(await createToken(replica, "bad name", { "x-request-id": "no good" })).not.toBe("no good");
});

test("behind a trusted proxy the address is the one that it heard, whatever the client claims", async () => {
  const replica = await startTestReplica(database.url, { PINION_TRUSTED_PROXIES: "1" });
  await createToken(replica, "one", { "x-forwarded-for": "198.51.100.1, 203.0.113.9" });
  expect((await sourceOf(replica, "one")).address).toBe("203.0.113.9");
  await createToken(replica, "six", { "x-forwarded-for": "[2001:db8::7]:4711" });
  expect((await sourceOf(replica, "six")).address).toBe("2001:db8::7");
  await createToken(replica, "junk", { "x-forwarded-for": "<script>" });
  expect((await sourceOf(replica, "junk")).address).toBe("127.0.0.1");
  await createToken(replica, "none", {});
  expect((await sourceOf(replica, "none")).address).toBe("127.0.0.1");
});

test("every administrative write says from where, none was forgotten; what Pinion does by itself does not", async () => {
  const replica = await inNewOrg(replicas.one);
  const { clients } = replica;
  const device = await enrolDevice(clients);
  const { watcher } = await clients.watchers.createWatcher({ spec: { name: "W", prompt: "one" } });
  const watcherId = watcher!.id;
  const spec = { name: "W", prompt: "two" };
  await clients.watchers.updateWatcher({ watcherId, spec, updateMask: { paths: ["prompt"] } });
  await clients.watchers.pauseWatcher({ watcherId });
  await clients.watchers.resumeWatcher({ watcherId });
  const { run } = await clients.watchers.triggerWatcher({ watcherId });
  await clients.runs.cancelRun({ runId: run!.id });
  await clients.runs.retryRun({ runId: run!.id });
  await clients.watchers.deleteWatcher({ watcherId });
  await clients.agents.createAgent({ agentId: "helper", name: "Helper" });
  await clients.agents.updateAgentSettings({
    agentId: "helper",
    settings: { model: "m-2" },
    updateMask: { paths: ["model"] },
  });
  await clients.agents.deleteAgent({ agentId: "helper" });
  await clients.fleet.updateDevice({
    deviceId: device.deviceId,
    label: "renamed",
    updateMask: { paths: ["label"] },
  });
  await clients.fleet.deleteDevice({ deviceId: device.deviceId });
  const { member } = await clients.orgs.addMember({ email: "a@x.example", role: MemberRole.MEMBER });
  await clients.orgs.addMember({ email: "a@x.example", role: MemberRole.ADMIN });
  await clients.orgs.removeMember({ userId: member!.userId });
  const { token } = await clients.tokens.createToken({ kind: TokenKind.PAT, label: "x", scopes: ["read"] });
  await clients.tokens.rotateToken({ tokenId: token!.id });
  await clients.tokens.revokeToken({ tokenId: token!.id });

  const all = await listEvents(replica);
  const written = all.filter((event) => event.actor.startsWith("user:"));
  expect(new Set(written.map((event) => event.kind)).size).toBeGreaterThanOrEqual(15);
  for (const event of written) expect([event.kind, event.source?.address]).toEqual([event.kind, "127.0.0.1"]);
  const own = all.filter((event) => event.actor === "pinion");
  expect(own.length).toBeGreaterThan(0);
  expect(own.filter((event) => event.source)).toEqual([]);

  const changes = (kind: string) =>
    all.find((event) => event.kind === kind && (!event.watcherId || event.watcherId === watcherId))!.data!
      .changes;
  expect(changes("watcher.updated")).toEqual({ prompt: { from: "one", to: "two" } });
  expect(changes("agent.updated")).toEqual({ model: { from: null, to: "m-2" } });
  expect(changes("device.updated")).toEqual({ label: { from: device.label, to: "renamed" } });
  expect(changes("member.updated")).toEqual({ role: { from: "member", to: "admin" } });
});

test("what many devices report in one batch is said to come from none of them", async () => {
  const replica = await inNewOrg(replicas.one);
  const device = await enrolDevice(replica.clients);
  const stream = await connect(replica.url, device);
  const run = await startWork(replica.clients, device);
  const assignment = await takeOn(stream);
  const reporter = createClients({ url: replica.url, token: device.token });
  onTestFinished(() => reporter.close());
  await reporter.device.completeRun({
    completion: { workId: run.id, attemptToken: assignment.attemptToken, outcome: 1 },
  });
  const [completed] = await listEvents(replica, "run.completed");
  expect(completed).toMatchObject({ actor: `device:${device.deviceId}`, runId: run.id });
  expect(completed!.source).toBeUndefined();
  const [enrolled] = await listEvents(replica, "device.enrolled");
  expect(enrolled!.source).toMatchObject({ address: "127.0.0.1", tokenId: "" });
});

test("a stream that resumes on another replica misses no event that was committed late, and shows none twice", async () => {
  const { one, two, orgId } = await inOneNewOrg(replicas);
  const seen: string[] = [];
  const read = async (replica: TestReplica, afterCursor: string, until: string): Promise<string> => {
    const leave = new AbortController();
    for await (const { update } of replica.clients.events.watchEvents(
      { afterCursor, kinds: ["test."] },
      { signal: leave.signal },
    )) {
      if (update.case !== "event") continue;
      seen.push(update.value.kind);
      if (update.value.kind === until) {
        leave.abort();
        return update.value.cursor;
      }
    }
    throw new Error("the stream ended");
  };
  const write = (kind: string) =>
    database.db.transaction().execute((tx) => events.append(tx, orgId, [{ kind, actor: "pinion" }]));

  await write("test.first");
  const cursor = await read(one, "0", "test.first");
  // Has its number, and is not committed; an event with a later number must not be shown before.
  await using slow = await hold(database.db);
  await events.append(slow.tx, orgId, [{ kind: "test.slow", actor: "pinion" }]);
  await slow.sent();
  const quick = write("test.quick");
  const resumed = read(two, cursor, "test.quick");
  await untilBlocked(database.db);
  expect(seen).toEqual(["test.first"]);
  await slow.commit();
  await quick;
  const next = await resumed;
  await write("test.last");
  await read(one, next, "test.last");
  expect(seen).toEqual(["test.first", "test.slow", "test.quick", "test.last"]);
});
