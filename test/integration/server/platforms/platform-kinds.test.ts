/**
 * Platforms that send their messages to our port: Slack, through its real adapter and a Web API on
 * this machine, and programs of an org. Any replica takes a message in.
 */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Webhook } from "standardwebhooks";
import { afterAll, beforeAll, beforeEach, expect, onTestFinished, test, vi } from "vitest";
import { QuestionOptionKind } from "#gen/pinion/v1/activity_pb.js";
import { PlatformStatus } from "#gen/pinion/v1/agent_pb.js";
import { DeliveryState } from "#gen/pinion/v1/destination_pb.js";
import { QuestionState } from "#gen/pinion/v1/run_pb.js";
import { newKey } from "../../../../src/secrets.ts";
import { useDatabase } from "../../../support/database.ts";
import type { DeviceStream } from "../../../support/device.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { startSlack, type TestSlack } from "../../../support/slack.ts";
import { answer, nameOf } from "../../../support/talk.ts";
import { takeOn } from "../../../support/work.ts";
import { connectWorker, fleetToken, workerIdentity } from "../../../support/worker.ts";

const database = useDatabase({ per: "file" });
const env = {
  PINION_SECRET_KEYS: newKey(),
  PINION_DESTINATION_NETWORKS: "127.0.0.1",
  // The worker of a test sends no heartbeats.
  PINION_HEARTBEAT_TTL_MS: "60000",
};
const wait = { timeout: 8_000, interval: 20 };
const signingSecret = `whsec_${Buffer.alloc(32, 7).toString("base64")}`;
let here: TestReplica;
let there: TestReplica;
let slack: TestSlack;
let worker: DeviceStream;

beforeAll(async () => {
  [here, there, slack] = await Promise.all([
    openTestReplica(database.url, env),
    openTestReplica(database.url, env),
    startSlack(),
  ]);
});
afterAll(async () => {
  await Promise.all([here.stop(), there.stop()]);
  await slack[Symbol.asyncDispose]();
});
beforeEach(async () => {
  const identity = workerIdentity(await fleetToken(here.clients));
  worker = await connectWorker(there.url, identity, { maxConcurrency: 8 });
  onTestFinished(async () => {
    worker.end();
    await worker.ended;
  });
});

const value = (text: string) => ({ kind: { case: "value", value: text } }) as const;

async function startPlatform(kind: string, config: Record<string, string>, secrets: Record<string, string>) {
  const stableId = `${kind}-${randomUUID().slice(0, 8)}`;
  const { platform } = await here.clients.agents.upsertPlatform({
    ...{ stableId, agentId: "pinion-default", kind, config },
    secrets: Object.fromEntries(Object.entries(secrets).map(([name, text]) => [name, value(text)])),
  });
  onTestFinished(async () => {
    await here.clients.agents.deletePlatform({ stableId });
  });
  const at = ({ url }: TestReplica) => new URL(platform!.webhookUrl, url).href;
  return { stableId, platform: platform!, at };
}

const startSlackPlatform = (config: Record<string, string> = {}, token = slack.token) =>
  startPlatform(
    "slack",
    { api_url: slack.url, allow_from: "*", allow_groups: "*", ...config },
    { bot_token: token, signing_secret: slack.signingSecret },
  );

const channelOf = (direct: boolean) => `${direct ? "D" : "C"}${randomUUID().slice(0, 8).toUpperCase()}`;

function message(channel: string, text: string, more: Record<string, string> = {}) {
  const type = channel.startsWith("D") ? "im" : "channel";
  return {
    type: "message",
    channel,
    channel_type: type,
    user: "UADA",
    ts: slack.ts(),
    text,
    team: "T1",
    ...more,
  };
}

test("a token that Slack refuses fails the start with Slack's word", async () => {
  await expect(startSlackPlatform({}, "xoxb-wrong")).rejects.toThrow("Slack answers 200: invalid_auth");
});

test("a direct message to Slack is answered once, whatever replica it and its repeats reach", async () => {
  const { at, platform, stableId } = await startSlackPlatform();
  expect(platform).toMatchObject({
    status: PlatformStatus.RUNNING,
    webhookUrl: `/platforms/local/${stableId}`,
  });
  const channel = channelOf(true);
  const event = message(channel, "hello");
  const again = { "x-slack-retry-num": "1" };
  const statuses = await Promise.all([
    slack.event(at(here), event),
    slack.event(at(there), event),
    slack.event(at(there), event, again),
  ]);
  expect(statuses).toEqual([200, 200, 200]);
  const assignment = await takeOn(worker);
  expect(assignment).toMatchObject({
    context: { conversationId: "pinion-default_slack:UADA_local" },
    turn: { input: "hello" },
  });
  await answer(worker, assignment, "hello, **Ada**");
  await vi.waitFor(() => expect(slack.shown(channel).at(-1)?.text).toBe("hello, **Ada**"), wait);
  expect(slack.shown(channel)).toHaveLength(1);
  expect(await slack.event(at(here), event, again)).toBe(200);
  const conversationId = "pinion-default_slack:UADA_local";
  const { turns } = await here.clients.turns.listTurns({ conversationId });
  expect(turns.filter(({ input }) => input === "hello")).toHaveLength(1);
});

test("in a channel of Slack the bot is mentioned once, and then follows the thread, on any replica", async () => {
  const { at } = await startSlackPlatform();
  const channel = channelOf(false);
  const first = message(channel, "<@UBOT> what is up?");
  // Slack tells a mention twice, as two events.
  await slack.event(at(here), first);
  await slack.event(at(there), { ...first, type: "app_mention" });
  const assignment = await takeOn(worker);
  expect(assignment.context?.conversationId).toBe(`pinion-default_slack:UADA@${channel}_local`);
  await answer(worker, assignment, "not much");
  await vi.waitFor(
    () => expect(slack.shown(channel)).toMatchObject([{ text: "not much", threadTs: first.ts }]),
    wait,
  );
  await slack.event(at(here), message(channel, "I am not talking to you"));
  await slack.event(at(there), message(channel, "and in this thread?", { thread_ts: first.ts }));
  const second = await takeOn(worker);
  expect(second.turn?.input).toBe("and in this thread?");
  await answer(worker, second, "nothing either");
  await vi.waitFor(() => expect(slack.shown(channel)).toHaveLength(2), wait);
});

test("an agent's question has buttons in the chat; the press is the answer, by the person who was asked alone", async () => {
  const { at, stableId } = await startSlackPlatform();
  const channel = channelOf(true);
  await slack.event(at(here), message(channel, "push it"));
  const assignment = await takeOn(worker);
  const options = [
    { id: "yes", label: "Yes", kind: QuestionOptionKind.ALLOW_ONCE },
    { id: "no", label: "No", kind: QuestionOptionKind.DENY_ONCE },
  ];
  worker.send({
    case: "question",
    value: { ...nameOf(assignment), question: { id: "q1", title: "May I push?", options } },
  });
  const shown = await vi.waitFor(() => {
    const found = slack.shown(channel).find(({ blocks }) => blocks.includes("May I push?"));
    expect(found?.blocks).toContain("Yes");
    return found!;
  }, wait);
  const values = [...shown.blocks.matchAll(/"value":"([^"]+)"/g)].map(([, found]) => found!);
  expect(values).toHaveLength(2);
  expect(await slack.press(at(there), shown, values[0]!, "UEVE")).toBe(200);
  expect(await slack.press(at(there), shown, values[1]!, "UADA")).toBe(200);
  expect(await worker.next("answer")).toMatchObject({ questionId: "q1", optionId: "no" });
  expect(await slack.press(at(here), shown, values[0]!, "UADA")).toBe(200);
  const { questions } = await here.clients.runs.listQuestions({ turnId: assignment.workId });
  expect(questions).toMatchObject([
    { state: QuestionState.ANSWERED, optionId: "no", answeredBy: `platform:${stableId}/UADA` },
  ]);
  await vi.waitFor(
    () =>
      expect(slack.shown(channel).find(({ ts }) => ts === shown.ts)).toMatchObject({
        text: expect.stringContaining("→ No"),
      }),
    wait,
  );
  await answer(worker, assignment, "then I will not");
  await vi.waitFor(() => expect(slack.shown(channel).at(-1)?.text).toBe("then I will not"), wait);
});

test("a message that names an option is the answer, once; what permits for good is not offered in a chat", async () => {
  const { at, stableId } = await startSlackPlatform();
  const channel = channelOf(true);
  await slack.event(at(here), message(channel, "push it, please"));
  const assignment = await takeOn(worker);
  const options = [
    { id: "always", label: "Always", kind: QuestionOptionKind.ALLOW_ALWAYS },
    { id: "yes", label: "Yes", kind: QuestionOptionKind.ALLOW_ONCE },
    { id: "no", label: "No", kind: QuestionOptionKind.DENY_ONCE },
  ];
  worker.send({
    case: "question",
    value: {
      ...nameOf(assignment),
      question: { id: "q1", title: "May I push this?", options, takesText: true },
    },
  });
  const shown = await vi.waitFor(() => {
    const found = slack.shown(channel).find(({ blocks }) => blocks.includes("1 Yes · 2 No"));
    expect(found).toBeDefined();
    return found!;
  }, wait);
  const values = [...shown.blocks.matchAll(/"value":"([^"]+)"/g)].map(([, found]) => found!);
  expect(values).toHaveLength(2);
  // The value that a button for "Always" would have.
  expect(await slack.press(at(here), shown, values[0]!.replace(/:1$/, ":0"), "UADA")).toBe(200);
  await vi.waitFor(async () => {
    const { platforms } = await here.clients.agents.listPlatforms({});
    expect(platforms.find((platform) => platform.stableId === stableId)?.lastError).toContain(
      "does not offer",
    );
  }, wait);

  // An ordinary message is a turn, which waits for the one that asks.
  await slack.event(at(there), message(channel, "how long will it take?"));
  const written = message(channel, "no, the tests are red");
  expect(await Promise.all([slack.event(at(here), written), slack.event(at(there), written)])).toEqual([
    200, 200,
  ]);
  expect(await worker.next("answer")).toMatchObject({
    questionId: "q1",
    optionId: "no",
    text: "the tests are red",
  });
  await slack.event(at(there), written);
  await vi.waitFor(
    () => expect(slack.shown(channel).find(({ ts }) => ts === shown.ts)?.text).toContain("→ No"),
    wait,
  );
  await answer(worker, assignment, "not pushed");
  const second = await takeOn(worker);
  expect(second.turn?.input).toBe("how long will it take?");
  await answer(worker, second, "a minute");
  // The answer became no turn, whoever told it again.
  await slack.event(at(here), message(channel, "thank you"));
  const third = await takeOn(worker);
  expect(third.turn?.input).toBe("thank you");
  await answer(worker, third, "gladly");
});

test("a request with a wrong signature, to a platform that does not run, or to none is turned down", async () => {
  const { at, stableId } = await startSlackPlatform();
  const post = (url: string, headers: Record<string, string> = {}) =>
    fetch(url, { method: "POST", body: "{}", headers: { "content-type": "application/json", ...headers } });
  const forged = {
    "x-slack-signature": "v0=00",
    "x-slack-request-timestamp": String(Math.floor(Date.now() / 1_000)),
  };
  expect((await post(at(here), forged)).status).toBe(401);
  expect((await post(at(there))).status).toBe(401);
  expect((await post(`${here.url}/platforms/local/none`)).status).toBe(404);
  await there.clients.agents.stopPlatform({ stableId });
  expect(await slack.event(at(here), message(channelOf(true), "hello"))).toBe(404);
});

/** A program of the org that takes replies. */
async function startProgram() {
  const taken: {
    id: string;
    type: string;
    data: { text: string; chat: string; buttons?: { value: string }[] };
  }[] = [];
  let status = 200;
  const server = createServer(async (request, response) => {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const body = Buffer.concat(chunks).toString();
    new Webhook(signingSecret).verify(body, request.headers as Record<string, string>);
    if (status === 200) taken.push({ id: String(request.headers["webhook-id"]), ...JSON.parse(body) });
    response.statusCode = status;
    response.end();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/replies`;
  return { url, taken, answerWith: (next: number) => (status = next) };
}

function sendSigned(url: string, body: object) {
  const text = JSON.stringify(body);
  const id = randomUUID();
  const at = new Date();
  return fetch(url, {
    method: "POST",
    body: text,
    headers: {
      "content-type": "application/json",
      "webhook-id": id,
      "webhook-timestamp": String(Math.floor(at.getTime() / 1_000)),
      "webhook-signature": new Webhook(signingSecret).sign(id, at, text),
    },
  });
}

test("a program of the org sends signed messages, and gets signed replies, each turn once", async () => {
  const program = await startProgram();
  const { at } = await startPlatform(
    "webhook",
    { allow_from: "ada" },
    { url: program.url, signing_secret: signingSecret },
  );
  const hello = { id: "m1", user: "ada", text: "hello" };
  const answers = await Promise.all([sendSigned(at(here), hello), sendSigned(at(there), hello)]);
  expect(answers.map(({ status }) => status)).toEqual([202, 202]);
  expect((await fetch(at(here), { method: "POST", body: JSON.stringify(hello) })).status).toBe(401);
  expect((await sendSigned(at(here), { user: "ada" })).status).toBe(400);
  expect((await sendSigned(at(here), { id: "m2", user: "eve", text: "let me in" })).status).toBe(202);
  program.answerWith(500);
  const assignment = await takeOn(worker);
  expect(assignment.context?.conversationId).toBe("pinion-default_webhook:ada_local");
  await answer(worker, assignment, "hello, ada");
  await vi.waitFor(async () => {
    const { platforms } = await here.clients.agents.listPlatforms({});
    expect(platforms.map(({ lastError }) => lastError)).toContainEqual(
      expect.stringContaining("answers 500"),
    );
  }, wait);
  program.answerWith(200);
  await vi.waitFor(() => expect(program.taken).toHaveLength(1), wait);
  expect(program.taken[0]).toMatchObject({
    id: assignment.workId,
    type: "reply",
    data: { chat: "ada", text: "hello, ada" },
  });
});

test("a kind whose package is not installed says what to install", async () => {
  await expect(startPlatform("linear", {}, { api_key: "x", webhook_secret: "y" })).rejects.toThrow(
    /the kind "linear" needs the package @chat-adapter\/linear.*npm install/,
  );
});

test("results go to a chat of a platform, from whatever replica, and say so while it does not run", async () => {
  const { stableId } = await startSlackPlatform();
  const channel = channelOf(false);
  const { destination } = await here.clients.destinations.createDestination({
    slug: `to-${stableId}`,
    spec: { name: "Team", kind: { case: "platform", value: { platformId: stableId, chat: channel } } },
  });
  expect(destination?.spec?.kind).toMatchObject({
    case: "platform",
    value: { platformId: stableId, chat: channel },
  });
  const test = (replica: TestReplica) =>
    replica.clients.destinations.testDestination({ destinationId: destination!.id });
  expect((await test(there)).delivery).toMatchObject({ state: DeliveryState.DELIVERED });
  expect(slack.shown(channel)).toMatchObject([{ text: expect.stringContaining("A test from Pinion") }]);
  await here.clients.agents.stopPlatform({ stableId });
  expect((await test(there)).delivery).toMatchObject({
    // A test is tried once.
    state: DeliveryState.DEAD,
    lastError: `there is no platform "${stableId}", or it does not run`,
  });
});
