/**
 * Odd requests to the MCP endpoint: each is answered, and none works on for a caller that is gone.
 */
import { sql } from "kysely";
import { beforeAll, expect, test } from "vitest";
import { useDatabase } from "../../../support/database.ts";
import { connectForFile, enrolDevice } from "../../../support/device.ts";
import { useReplica } from "../../../support/server.ts";
import { takeOn } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replica = useReplica(database, {
  PINION_PUBLIC_URL: "http://pinion.example",
  // The device of the tests sends no heartbeats.
  PINION_HEARTBEAT_TTL_MS: "600000",
});
let agentToken: string;

beforeAll(async () => {
  const { clients, url } = replica();
  const device = await enrolDevice(clients);
  const stream = await connectForFile(url, device);
  await clients.agents.createAgent({ agentId: "helper", name: "Helper" });
  const spec = { name: "Mine", prompt: "look", deviceId: device.deviceId, agentId: "helper" };
  await clients.watchers.createWatcher({ slug: "mine", spec });
  await clients.watchers.triggerWatcher({ watcherId: "mine" });
  agentToken = (await takeOn(stream)).agentToken;
  return () => stream.cancel();
});

/** Milliseconds; far less than the 60 s after which a request is given up. */
const answerMsMax = 15_000;

async function ask(token: string, body: string, ms = answerMsMax) {
  const answer = await fetch(`${replica().url}/mcp`, {
    method: "POST",
    body,
    headers: {
      accept: "application/json, text/event-stream",
      "content-type": "application/json",
      authorization: `Bearer ${token}`,
    },
    signal: AbortSignal.timeout(ms),
  });
  const text = await answer.text();
  return { status: answer.status, text };
}

const call = (name: string, args: Record<string, unknown> = {}, id: unknown = 1) => ({
  ...{ jsonrpc: "2.0", id, method: "tools/call", params: { name, arguments: args } },
});

test("a batch that cancels its own call is answered", async () => {
  const cancel = { jsonrpc: "2.0", method: "notifications/cancelled", params: { requestId: 1 } };
  const wait = call("ask_person", { title: "x", wait_seconds: 1 });
  const answer = await ask(agentToken, JSON.stringify([wait, cancel]));
  expect(answer.status).toBe(200);
  expect(answer.text).toContain("nobody has answered yet");
  expect((await ask(agentToken, JSON.stringify([cancel]))).status).toBe(202);
});

test("a batch has a bounded number of calls", async () => {
  const batch = (count: number) =>
    JSON.stringify(Array.from({ length: count }, (_, id) => call("my_watcher", {}, id)));
  expect(JSON.parse((await ask(agentToken, batch(20))).text)).toHaveLength(20);
  const refused = await ask(agentToken, batch(21));
  expect(refused).toMatchObject({ status: 400, text: expect.stringContaining("at most 20 messages") });
});

test("a number of an input that would be rounded is a text with its digits", async () => {
  const { clients, token } = replica();
  const { devices } = await clients.fleet.listDevices({});
  const spec = { name: "Counts", prompt: "look at {{ input.id }}", deviceId: devices[0]!.id };
  await clients.watchers.createWatcher({ slug: "counts", spec });
  const body = JSON.stringify(call("trigger_watcher", { watcher: "counts", input: { id: "BIG" } }));
  expect((await ask(token, body.replace('"BIG"', "9007199254740993"))).status).toBe(200);
  const { rows } = await sql<{ input: unknown }>`
    select input from run_start where input is not null`.execute(database.db);
  expect(rows).toEqual([{ input: { id: "9007199254740993" } }]);
});

test.each([50, 2_000, 100_000])("an input nested %d deep is refused at once", async (depth) => {
  const input = "[".repeat(depth) + "]".repeat(depth);
  const body = JSON.stringify(call("trigger_watcher", { watcher: "mine", input: "DEEP" }));
  const answer = await ask(replica().token, body.replace('"DEEP"', input));
  expect(answer).toMatchObject({ status: 400, text: expect.stringContaining("nested more than") });
});

test.each([
  ["nothing", "", 400],
  ["null", "null", 400],
  ["a string", '"x"', 400],
  ["an empty batch", "[]", 202],
  ["a batch with null", "[null]", 400],
  ["an id that is an object", '{"jsonrpc":"2.0","id":{},"method":"ping"}', 400],
  ["another version of JSON-RPC", '{"jsonrpc":"1.0","id":1,"method":"ping"}', 400],
  ["a byte order mark", '\ufeff{"jsonrpc":"2.0","id":1,"method":"ping"}', 200],
  ["a tool of each object's", JSON.stringify(call("__proto__")), 200],
  ["an unknown notification", '{"jsonrpc":"2.0","method":"nothing/known"}', 202],
  ["an answer", '{"jsonrpc":"2.0","id":1,"result":{}}', 202],
])("%s is answered", async (_, body, status) => {
  expect((await ask(replica().token, body)).status).toBe(status);
});

/** The transactions of the file's database. */
async function transactions(): Promise<number> {
  const { rows } = await sql<{ count: string }>`
    select xact_commit + xact_rollback as count from pg_stat_database where datname = current_database()`.execute(
    database.db,
  );
  return Number(rows[0]?.count);
}

test("calls whose callers have gone wait no longer", async () => {
  const asked = await ask(agentToken, JSON.stringify(call("ask_person", { title: "x", wait_seconds: 0 })));
  const [id = ""] = /mcp-[0-9a-f-]+/.exec(asked.text) ?? [];
  const wait = JSON.stringify(call("get_answer", { question_id: id, wait_seconds: 50 }));
  const waits = Array.from({ length: 40 }, () => ask(agentToken, wait, 1_000).catch(() => "gone"));
  expect(new Set(await Promise.all(waits))).toEqual(new Set(["gone"]));
  // A wait looks twice a second. PostgreSQL tells of transactions with a delay of up to a second.
  let before = 0;
  let looks = 0;
  const since = async () => {
    const now = await transactions();
    const count = now - before;
    before = now;
    // The first two looks count what was before, or no time at all.
    return looks++ < 2 ? Number.POSITIVE_INFINITY : count;
  };
  await expect.poll(since, { timeout: 20_000, interval: 1_500 }).toBeLessThan(40);
});
