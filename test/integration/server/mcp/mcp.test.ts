/**
 * The MCP endpoint, through the SDK's own client: tools of people and services, and those of a
 * run's agent.
 */
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { createClients } from "@pinion/client";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import * as tokens from "../../../../src/store/people/credentials/tokens.ts";
import { agentToken } from "../../../../src/values/agent-token.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { takeOn } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
let here: TestReplica;
let there: TestReplica;

beforeAll(async () => {
  const env = { PINION_PUBLIC_URL: "http://pinion.example" };
  here = await openTestReplica(database.url, env);
  there = await openTestReplica(database.url, env);
});
afterAll(() => Promise.all([here.stop(), there.stop()]));

async function open(token: string, replica: TestReplica = here): Promise<Client> {
  const client = new Client({ name: "test", version: "1" });
  const requestInit = { headers: { authorization: `Bearer ${token}` } };
  await client.connect(
    // The SDK's types do not know of exactOptionalPropertyTypes.
    new StreamableHTTPClientTransport(new URL(`${replica.url}/mcp`), { requestInit }) as never,
  );
  onTestFinished(() => client.close());
  return client;
}

type Answer = { isError?: boolean; content: { text: string }[] };

async function call(client: Client, name: string, args: Record<string, unknown> = {}) {
  const answer = (await client.callTool({ name, arguments: args })) as Answer;
  const text = answer.content[0]?.text ?? "";
  return { isError: answer.isError === true, text, json: () => JSON.parse(text) };
}

const namesOf = async (client: Client) => (await client.listTools()).tools.map(({ name }) => name).sort();

test("a person's token lists, creates and triggers watchers, and reads what they found", async () => {
  const client = await open(here.token);
  expect(await namesOf(client)).toEqual([
    ...[
      "answer_question",
      "create_watcher",
      "last_result",
      "list_questions",
      "list_results",
      "list_watchers",
    ],
    "trigger_watcher",
  ]);
  const device = await enrolDevice(here.clients);
  const stream = await connect(here.url, device);
  const made = await call(client, "create_watcher", {
    ...{ name: "By a tool", prompt: "look", device_id: device.deviceId, schedule: "@daily" },
  });
  expect(made.json()).toMatchObject({ slug: "by-a-tool", status: "active", device_id: device.deviceId });
  expect((await call(client, "list_watchers")).json().watchers).toContainEqual(made.json());
  expect((await call(client, "last_result", { watcher: "by-a-tool" })).text).toMatch(
    /No run .* has completed/,
  );

  const triggered = await call(client, "trigger_watcher", { watcher: "by-a-tool" });
  expect(triggered.json()).toMatchObject({ already_queued: false });
  await stream.complete(await takeOn(stream), "all is well");
  // Stateless: another replica gives the same answers.
  const elsewhere = await open(here.token, there);
  expect((await call(elsewhere, "last_result", { watcher: "by-a-tool" })).text).toContain("all is well");
  expect((await call(client, "list_results", { watcher: "by-a-tool" })).json()).toHaveLength(1);

  const { events } = await here.clients.events.listEvents({ kinds: ["watcher.created"] });
  const created = events.find((event) => event.watcherId === made.json().id);
  expect(created).toMatchObject({ actor: expect.stringMatching(/^user:/), source: { address: "127.0.0.1" } });
});

test("what the API refuses, a tool refuses in the same words; another org's things are not there", async () => {
  const { secret } = await tokens.issue(database.db, {
    orgId: "local",
    kind: "svc",
    label: "x",
    scopes: ["read"],
  });
  const reader = await open(secret);
  const refused = await call(reader, "create_watcher", { name: "x", prompt: "x" });
  expect(refused).toMatchObject({ isError: true, text: 'the token lacks the scope "write"' });
  expect(await call(reader, "last_result", { watcher: "nowhere" })).toMatchObject({
    isError: true,
    text: 'there is no watcher "nowhere"',
  });
  expect((await call(reader, "trigger_watcher", {})).isError).toBe(true);
});

test("nobody is let in without a good token, and only POST is answered", async () => {
  const ask = (headers: Record<string, string>, method = "POST") =>
    fetch(`${here.url}/mcp`, { method, headers, ...(method === "POST" ? { body: "{}" } : {}) });
  const statuses = await Promise.all([
    ...[
      {} as Record<string, string>,
      { authorization: "Bearer nonsense" },
      { authorization: "Bearer pin_run_nonsense" },
    ].map((headers) => ask(headers)),
    ask({ authorization: `Bearer ${here.token.slice(0, -1)}x` }),
  ]);
  expect(statuses.map(({ status }) => status)).toEqual([401, 401, 401, 401]);
  expect(statuses[0]!.headers.get("www-authenticate")).toContain("Bearer");
  expect((await ask({ authorization: `Bearer ${here.token}` }, "GET")).status).toBe(405);
});

test("a run's agent has a token of its own, for its own watcher and for the length of its attempt", async () => {
  const { clients } = here;
  const device = await enrolDevice(clients);
  const stream = await connect(here.url, device);
  await clients.agents.createAgent({ agentId: "helper", name: "Helper" });
  const spec = { prompt: "look", deviceId: device.deviceId, agentId: "helper" };
  const { watcher } = await clients.watchers.createWatcher({ slug: "mine", spec: { name: "Mine", ...spec } });
  await clients.watchers.createWatcher({ slug: "other", spec: { name: "Other", ...spec } });
  await clients.watchers.triggerWatcher({ watcherId: "mine" });
  await stream.complete(await takeOn(stream), "the first result");

  await clients.watchers.triggerWatcher({ watcherId: "mine" });
  const attempt = await takeOn(stream);
  expect(attempt.agent!.settings!.mcpServers).toMatchObject([
    { url: "http://pinion.example/mcp", isInjected: true },
  ]);
  expect(attempt.agentToken).toMatch(/^pin_run_/);
  expect(attempt.agentToken).not.toContain(attempt.attemptToken);
  expect(attempt.agentToken).not.toContain(device.token);

  const client = await open(attempt.agentToken);
  expect(await namesOf(client)).toEqual([
    "ask_person",
    "get_answer",
    "last_result",
    "list_results",
    "my_watcher",
  ]);
  expect((await call(client, "my_watcher")).json()).toMatchObject({
    slug: "mine",
    prompt: "look",
    run_id: attempt.workId,
  });
  expect((await call(client, "last_result")).text).toContain("the first result");
  expect((await call(client, "list_watchers")).isError).toBe(true);

  // No other endpoint accepts the token.
  const asApi = createClients({ url: here.url, token: attempt.agentToken });
  onTestFinished(() => asApi.close());
  await expect(asApi.watchers.listWatchers({})).rejects.toMatchObject({ reason: "unauthenticated" });
  // Knowledge of the run without the attempt gives no valid token either.
  const forged = agentToken({ orgId: "local", runId: attempt.workId, attemptToken: attempt.workId });
  await expect(open(forged)).rejects.toThrow();
  const elsewhere = agentToken({
    orgId: "globex",
    runId: attempt.workId,
    attemptToken: attempt.attemptToken,
  });
  await expect(open(elsewhere)).rejects.toThrow();

  await stream.complete(attempt, "the second result");
  await expect(call(client, "last_result")).rejects.toThrow(/401|attempt, which is over/);
  expect(watcher!.slug).toBe("mine");
});

test("a run's agent asks a person, and hears the answer that was given on another replica", async () => {
  const { clients } = here;
  const device = await enrolDevice(clients);
  const stream = await connect(here.url, device);
  await clients.agents.createAgent({ agentId: "asker", name: "Asker" });
  await clients.watchers.createWatcher({
    slug: "asks",
    spec: { name: "Asks", prompt: "ask", deviceId: device.deviceId, agentId: "asker" },
  });
  const { run } = await clients.watchers.triggerWatcher({ watcherId: "asks" });
  const attempt = await takeOn(stream);
  const client = await open(attempt.agentToken);
  const open_ = await call(client, "ask_person", { title: "Deploy?", wait_seconds: 0 });
  expect(open_.json()).toMatchObject({ state: "open" });
  const questionId = open_.json().question_id as string;

  const person = await open(there.token, there);
  const [asked] = (await call(person, "list_questions")).json();
  expect(asked).toMatchObject({
    runId: run!.id,
    question: { id: questionId, title: "Deploy?", takesText: true },
  });
  const waiting = call(client, "get_answer", { question_id: questionId, wait_seconds: 20 });
  const answered = await call(person, "answer_question", {
    ...{ run_id: run!.id, question_id: questionId, option_id: "option-1", text: "but slowly" },
  });
  expect(answered.isError).toBe(false);
  expect((await waiting).json()).toMatchObject({ state: "answered", answer: "Yes", text: "but slowly" });
  await vi.waitFor(() => expect(stream.waiting("answer")).toHaveLength(1));
  await stream.complete(attempt, "done", Outcome.COMPLETED);
});
