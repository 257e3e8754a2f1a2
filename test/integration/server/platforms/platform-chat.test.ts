/**
 * Chats on platforms, through the real adapters: messages become turns, replies come back, whatever
 * replica has the instance. Telegram is on this machine.
 */
import { randomUUID } from "node:crypto";
import { createClients } from "@pinion/client";
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { PlatformStatus } from "#gen/pinion/v1/agent_pb.js";
import { OutputStream } from "#gen/pinion/v1/run_pb.js";
import { newKey } from "../../../../src/secrets.ts";
import { useDatabase } from "../../../support/database.ts";
import type { DeviceStream } from "../../../support/device.ts";
import { startPinion } from "../../../support/processes.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { answer, nameOf } from "../../../support/talk.ts";
import { startTelegram, type TestTelegram } from "../../../support/telegram.ts";
import { takeOn } from "../../../support/work.ts";
import { connectWorker, fleetToken, workerIdentity } from "../../../support/worker.ts";

const database = useDatabase({ per: "file" });
const env = {
  PINION_SECRET_KEYS: newKey(),
  PINION_DESTINATION_NETWORKS: "127.0.0.1",
  PINION_PLATFORM_LEASE_MS: "1500",
  // The worker of a test sends no heartbeats.
  PINION_HEARTBEAT_TTL_MS: "60000",
};
let here: TestReplica;
let there: TestReplica;
let telegram: TestTelegram;
let worker: DeviceStream;

beforeAll(async () => {
  [here, there, telegram] = await Promise.all([
    openTestReplica(database.url, env),
    openTestReplica(database.url, env),
    startTelegram(),
  ]);
});
beforeEach(async () => {
  const identity = workerIdentity(await fleetToken(here.clients));
  worker = await connectWorker(there.url, identity, { maxConcurrency: 8 });
  onTestFinished(async () => {
    worker.end();
    await worker.ended;
  });
});
afterAll(async () => {
  await Promise.all([here.stop(), there.stop()]);
  await telegram[Symbol.asyncDispose]();
});

const wait = { timeout: 8_000, interval: 20 };

/** A Telegram platform that only this test's person may use; stopped after the test. */
async function startChat(config: Record<string, string> = {}, replica: Pick<TestReplica, "clients"> = here) {
  const stableId = `chat-${randomUUID().slice(0, 8)}`;
  const userId = 1_000 + Math.floor(Math.random() * 1e9);
  const { platform } = await replica.clients.agents.upsertPlatform({
    stableId,
    agentId: "pinion-default",
    kind: "telegram",
    config: { api_url: telegram.url, allow_from: String(userId), ...config },
    secrets: { bot_token: { kind: { case: "value", value: telegram.token } } },
  });
  onTestFinished(async () => {
    await here.clients.agents.deletePlatform({ stableId });
    telegram.intercept = undefined;
  });
  return { stableId, userId, platform: platform! };
}

async function shown(stableId: string) {
  const { platforms } = await there.clients.agents.listPlatforms({});
  return platforms.find((platform) => platform.stableId === stableId)!;
}

test("a token that Telegram refuses fails the start with Telegram's words, for all who waited", async () => {
  const stableId = "refused";
  const upsert = (replica: TestReplica) =>
    replica.clients.agents.upsertPlatform({
      stableId,
      agentId: "pinion-default",
      kind: "telegram",
      config: { api_url: telegram.url },
      secrets: { bot_token: { kind: { case: "value", value: "not a token" } } },
    });
  const errors = await Promise.allSettled([here, there, here, there].map(upsert));
  for (const error of errors) {
    expect(error).toMatchObject({ status: "rejected" });
    expect(String((error as PromiseRejectedResult).reason)).toContain("Telegram answers 401: Unauthorized");
  }
  expect(await shown(stableId)).toMatchObject({
    status: PlatformStatus.FAILED,
    statusReason: "Telegram answers 401: Unauthorized",
    replicaId: "",
  });
  await expect(there.clients.agents.startPlatform({ stableId })).rejects.toThrow("401: Unauthorized");
  await here.clients.agents.deletePlatform({ stableId });
});

test("an address that nobody serves, or that the operator does not allow, fails the start", async () => {
  await expect(startChat({ api_url: "http://127.0.0.1:1" })).rejects.toThrow(
    /127\.0\.0\.1:1: .*ECONNREFUSED/,
  );
  await expect(startChat({ api_url: "http://10.0.0.7" })).rejects.toThrow("PINION_DESTINATION_NETWORKS");
  await expect(startChat({ api_url: "file:///etc/passwd" })).rejects.toThrow("not an http or https URL");
});

test("a message is a turn in its sender's conversation; the reply streams into one message", async () => {
  const { stableId, userId } = await startChat();
  telegram.write("what is 6 x 7?", { userId });
  const assignment = await takeOn(worker);
  expect(assignment).toMatchObject({
    agent: { id: "pinion-default" },
    context: { conversationId: `pinion-default_telegram:${userId}_local` },
    turn: { input: "what is 6 x 7?" },
  });
  const data = Buffer.from("I think");
  const value = { ...nameOf(assignment), sequence: 1n, stream: OutputStream.STDOUT, data };
  worker.send({ case: "output", value });
  await vi.waitFor(() => expect(telegram.shown(userId).at(-1)?.text).toContain("I think"), wait);
  await answer(worker, assignment, "I think it is **42**.");
  await vi.waitFor(() => expect(telegram.shown(userId).at(-1)?.text).toBe("I think it is **42**."), wait);
  expect(telegram.shown(userId)).toHaveLength(1);
  await vi.waitFor(async () => {
    const now = await shown(stableId);
    expect(now.lastMessageInAt).toBeDefined();
    expect(now.lastMessageOutAt).toBeDefined();
  }, wait);
  expect(await shown(stableId)).toMatchObject({ status: PlatformStatus.RUNNING, replicaId: here.replicaId });
});

test("an update that Telegram repeats starts no second turn and no second reply", async () => {
  const { userId } = await startChat();
  telegram.write("once", { userId });
  const assignment = await takeOn(worker);
  telegram.repeatUpdates();
  await answer(worker, assignment, "only once");
  await vi.waitFor(() => expect(telegram.shown(userId).at(-1)?.text).toBe("only once"), wait);
  telegram.repeatUpdates();
  telegram.write("and again", { userId });
  const second = await takeOn(worker);
  expect(second.turn?.input).toBe("and again");
  await answer(worker, second, "twice");
  await vi.waitFor(() => expect(telegram.shown(userId).at(-1)?.text).toBe("twice"), wait);
  expect(telegram.shown(userId)).toHaveLength(2);
  const conversationId = `pinion-default_telegram:${userId}_local`;
  expect((await here.clients.turns.listTurns({ conversationId })).turns).toHaveLength(2);
});

test("only those named in allow_from and allow_groups are let through, and the platform says who was not", async () => {
  const { stableId, userId } = await startChat({ allow_groups: "-100" });
  telegram.write("let me in", { userId: userId + 1 });
  await vi.waitFor(
    async () =>
      expect((await shown(stableId)).lastError).toBe(
        `a message of Ada (${userId + 1}) was not let through; to let it, add ${userId + 1} to allow_from`,
      ),
    wait,
  );
  telegram.write("hello all", { userId, chatId: -100 });
  telegram.write("and you?", { userId, chatId: -200, isMention: true });
  telegram.write("you!", { userId: userId + 1, chatId: -100, isMention: true });
  const assignment = await takeOn(worker);
  expect(assignment).toMatchObject({
    context: { conversationId: `pinion-default_telegram:${userId + 1}@-100_local` },
    turn: { input: "@TestNameBot you!" },
  });
  await answer(worker, assignment, "me?");
  await vi.waitFor(() => expect(telegram.shown(-100).at(-1)?.text).toBe("me?"), wait);
  const { turns } = await here.clients.turns.listTurns({});
  expect(
    turns.filter(({ input }) => ["let me in", "hello all", "@TestNameBot and you?"].includes(input)),
  ).toEqual([]);
});

test("messages of one chat are answered in their order, and each in a message of its own", async () => {
  const { userId } = await startChat();
  for (const n of [1, 2, 3, 4, 5]) telegram.write(`n${n}`, { userId });
  for (const n of [1, 2, 3, 4, 5]) {
    const assignment = await takeOn(worker);
    expect(assignment.turn?.input).toBe(`n${n}`);
    await answer(worker, assignment, `to ${n}`);
  }
  await vi.waitFor(
    () =>
      expect(telegram.shown(userId).map(({ text }) => text)).toEqual([1, 2, 3, 4, 5].map((n) => `to ${n}`)),
    wait,
  );
});

test("a reply that the platform takes slowly keeps its place before the next one", async () => {
  const [userId, otherId] = [2_000_000_001, 2_000_000_002];
  await startChat({ allow_from: `${userId},${otherId}` });
  const held = telegram.hold("sendRichMessage");
  for (const n of [1, 2]) telegram.write(`n${n}`, { userId });
  await answer(worker, await takeOn(worker), "first");
  await held.reached;
  await answer(worker, await takeOn(worker), "second");
  // A later reply in another chat waits for nobody.
  telegram.write("n3", { userId: otherId });
  await answer(worker, await takeOn(worker), "third");
  await vi.waitFor(() => expect(telegram.shown(otherId).map(({ text }) => text)).toEqual(["third"]), wait);
  held.release();
  await vi.waitFor(
    () => expect(telegram.shown(userId).map(({ text }) => text)).toEqual(["first", "second"]),
    wait,
  );
});

test("a long reply comes in parts, and a turn that fails says why", async () => {
  const { userId } = await startChat();
  telegram.write("tell me all", { userId });
  const long = Array.from({ length: 200 }, (_, n) => `Line ${n} of a long answer to a short question`).join(
    "\n",
  );
  await answer(worker, await takeOn(worker), long);
  await vi.waitFor(() => expect(telegram.shown(userId)).toHaveLength(4), wait);
  const whole = telegram
    .shown(userId)
    .map(({ text }) => text)
    .join("\n");
  expect(whole).toBe(long);
  telegram.write("and now?", { userId });
  const assignment = await takeOn(worker);
  await here.clients.turns.cancelTurn({ turnId: assignment.workId, reason: "no time" });
  await worker.next("cancel");
  worker.send({ case: "cancelled", value: nameOf(assignment) });
  await vi.waitFor(() => expect(telegram.shown(userId).at(-1)?.text).toContain("Cancelled"), wait);
});

test("a stopped platform asks for no more messages; started again, it takes what waits", async () => {
  const { stableId, userId } = await startChat();
  const { platform } = await there.clients.agents.stopPlatform({ stableId });
  expect(platform).toMatchObject({ status: PlatformStatus.STOPPED, replicaId: "" });
  telegram.write("is anybody there?", { userId });
  const polls = telegram.calls.filter(({ method }) => method === "getUpdates").length;
  await there.clients.agents.startPlatform({ stableId });
  expect(telegram.calls.filter(({ method }) => method === "getUpdates").length).toBeGreaterThanOrEqual(polls);
  const assignment = await takeOn(worker);
  expect(assignment.turn?.input).toBe("is anybody there?");
  expect(await shown(stableId)).toMatchObject({ status: PlatformStatus.RUNNING, replicaId: there.replicaId });
  await answer(worker, assignment, "yes");
  await vi.waitFor(() => expect(telegram.shown(userId).at(-1)?.text).toBe("yes"), wait);
});

test("a replica that is killed in the middle of a reply leaves its message to another one, which ends it", async () => {
  const other = startPinion(["serve", "--json", "--port", "0"], { DATABASE_URL: database.url, ...env });
  // On a busy machine a process takes its time.
  const line = await other.line(/"url"/).catch(() => other.line(/"url"/));
  const { url } = JSON.parse(line) as { url: string };
  const clients = createClients({ url, token: here.token });
  onTestFinished(() => clients.close());
  const { stableId, userId, platform } = await startChat({}, { clients });
  telegram.write("count to three", { userId });
  const assignment = await takeOn(worker);
  const data = Buffer.from("one, two");
  worker.send({
    case: "output",
    value: { ...nameOf(assignment), sequence: 1n, stream: OutputStream.STDOUT, data },
  });
  await vi.waitFor(() => expect(telegram.shown(userId).at(-1)?.text).toContain("one, two"), wait);
  const started = telegram.shown(userId)[0]!.messageId;
  // The next edit reaches Telegram, and its answer reaches no one.
  const held = telegram.hold("editMessageText");
  worker.send({
    case: "output",
    value: { ...nameOf(assignment), sequence: 2n, stream: OutputStream.STDOUT, data: Buffer.from(", th") },
  });
  await held.reached;
  await other.kill("SIGKILL");
  held.release();
  await answer(worker, assignment, "one, two, three");
  telegram.write("thank you", { userId });
  await vi.waitFor(() => expect(telegram.shown(userId)[0]?.text).toBe("one, two, three"), wait);
  const thanks = await takeOn(worker);
  expect(thanks.turn?.input).toBe("thank you");
  await answer(worker, thanks, "you are welcome");
  await vi.waitFor(() => expect(telegram.shown(userId)).toHaveLength(2), wait);
  expect(telegram.shown(userId)[0]).toMatchObject({ messageId: started, text: "one, two, three" });
  const now = await shown(stableId);
  expect(now.status).toBe(PlatformStatus.RUNNING);
  expect([here.replicaId, there.replicaId]).toContain(now.replicaId);
  expect(now.replicaId).not.toBe(platform.replicaId);
}, 90_000);
