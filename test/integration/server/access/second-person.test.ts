/**
 * What was said on a person's device, read through every rpc of the .proto files and every tool, by
 * everybody without a right to read it. A new rpc needs a request here or in every-rpc.ts.
 */
import { fromJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { QuestionOptionKind } from "#gen/pinion/v1/activity_pb.js";
import { NotifyWhen } from "#gen/pinion/v1/destination_pb.js";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import { OutputStream } from "#gen/pinion/v1/run_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import * as tokens from "../../../../src/store/people/credentials/tokens.ts";
import { useDatabase } from "../../../support/database.ts";
import { connectForFile, type DeviceStream, enrolDevice } from "../../../support/device.ts";
import { richCompletion } from "../../../support/rich-completion.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { addTenant } from "../../../support/tenants.ts";
import { takeOn } from "../../../support/work.ts";
import { call, methods, requestsAbout, shortName, textOf } from "./every-rpc.ts";

/** A word of everything that was said on the device, or asked of it. */
const word = "sesame4711";
const said = (where: string) => `${where} ${word}`;

const database = useDatabase({ per: "file" });
const env = {
  PINION_SECRET_KEYS: `k:${Buffer.alloc(32, 7).toString("base64")}`,
  PINION_DESTINATION_NETWORKS: "127.0.0.1",
  PINION_FAILURES_PER_ADDRESS: "0",
  PINION_HEARTBEAT_TTL_MS: "600000",
  // A run that begins again waits for longer than the tests take.
  PINION_RETRY_BACKOFF_MS: "600000",
};
let replica: TestReplica;
let ids: Record<string, string>;
/** Who may read, and who may not, by the secret of a token. */
let readers: Record<string, string>;
let strangers: Record<string, string>;

type Clients = TestReplica["clients"];

beforeAll(async () => {
  replica = await openTestReplica(database.url, env);
  const { clients } = replica;
  const member = async (name: string, tokenScopes = ["read", "write"]) =>
    clients.orgs.addMember({ email: `${name}@example.org`, role: MemberRole.MEMBER, tokenScopes });
  const ada = await member("ada");
  const bea = await member("bea");
  const viewer = await member("viewer", ["read"]);
  const asAda = createClients({ url: replica.url, token: ada.secret });
  const asBea = createClients({ url: replica.url, token: bea.secret });
  const { stream, ...made } = await sayEverything(asAda);
  ids = { ...made, member: ada.member!.userId };
  const issue = async (scopes: string[]) =>
    (await tokens.issue(database.db, { orgId: "local", kind: "svc", label: "x", scopes })).secret;
  const beasDevice = await enrolDevice(asBea, "bea's");
  readers = { "the owner": ada.secret, "an owner of the org": replica.token };
  strangers = {
    "a member": bea.secret,
    "a viewer": viewer.secret,
    "a service": await issue(["read", "write"]),
    "a fleet worker": await issue(["fleet:run"]),
    "another's device": beasDevice.token,
    "another org's owner": (await addTenant(database.db, "globex")).secret,
  };
  return async () => {
    stream.cancel();
    await replica.stop();
  };
});

/** Runs of each kind, a turn, a hook and a delivery, on a device of the person's. */
async function sayEverything(asAda: Clients): Promise<Record<string, string> & { stream: DeviceStream }> {
  const admin = replica.clients;
  const identity = await enrolDevice(asAda, "ada's laptop");
  const stream = await connectForFile(replica.url, identity, { maxConcurrency: 8 });
  const { deviceId } = identity;
  await admin.destinations.createDestination({
    slug: "ops",
    spec: { name: "Ops", kind: { case: "webhook", value: { url: "http://127.0.0.1:9/hook" } } },
  });
  const make = async (name: string, more: object = {}) =>
    (await asAda.watchers.createWatcher({ spec: { name, prompt: "do {{ input }}", deviceId, ...more } }))
      .watcher!;
  const start = async (watcherId: string, input = said("input")) => {
    await asAda.watchers.triggerWatcher({ watcherId, input: fromJson(ValueSchema, { a: input }) });
    return takeOn(stream);
  };
  const watcher = await make("Rich", { notify: [{ to: "ops", when: NotifyWhen.ALWAYS }], redact: [] });
  // The error of the condition quotes the result.
  await make("Follower", { prompt: "x", after: [watcher.slug], afterCondition: "int(result.text) > 3" });
  const rich = await start(watcher.id);
  const { transcript, ...told } = richCompletion(rich, {
    output: said("output"),
    resultText: said("result"),
  });
  transcript!.entries[0]!.body = {
    case: "text",
    value: { $typeName: "pinion.v1.AgentText", text: said("text") } as never,
  };
  stream.send({
    case: "complete",
    value: {
      ...told,
      transcript: transcript!,
      structured: JSON.stringify({ a: said("structured") }),
      notes: [said("note")],
    },
  });
  await stream.next("completionAck");
  const failing = await start((await make("Failing")).id);
  const failed = { workId: failing.workId, attemptToken: failing.attemptToken, outcome: Outcome.FAILED };
  stream.send({
    case: "complete",
    value: {
      ...failed,
      output: said("tail"),
      reason: said("reason"),
      stderrTail: said("stderr"),
      stopReason: word,
    },
  });
  await stream.next("completionAck");
  const late = await start((await make("Late")).id);
  await sql`update run set claimed_at = now() - interval '3 hours', last_beat_at = now() - interval '3 hours'
    where id = ${late.workId}`.execute(database.db);
  await asAda.runs.cancelRun({ runId: late.workId });
  await stream.next("cancel");
  stream.send({ case: "cancelled", value: { workId: late.workId, attemptToken: late.attemptToken } });
  await stream.beat();
  await stream.complete(late, said("late"));
  const reported = await reportEnds({ stream, make, start, asAda });
  const asking = await start((await make("Asking")).id);
  const { workId, attemptToken } = asking;
  const data = Buffer.from(said("live"));
  stream.send({
    case: "output",
    value: { workId, attemptToken, sequence: 1n, stream: OutputStream.STDOUT, data },
  });
  const options = [{ id: "yes", label: said("option"), kind: QuestionOptionKind.ALLOW_ONCE }];
  stream.send({
    case: "question",
    value: { workId, attemptToken, question: { id: "q1", title: said("question"), options } },
  });
  const { hook, secret, url } = await asAda.hooks.createHook({
    spec: { watcherId: (await make("Hooked")).slug, kind: HookKind.BEARER },
  });
  const headers = {
    authorization: `Bearer ${secret}`,
    "content-type": "application/json",
    "x-note": said("header"),
  };
  await fetch(`${replica.url}${url}`, { method: "POST", body: JSON.stringify({ a: said("body") }), headers });
  await takeOn(stream);
  const agentId = "adas-agent";
  await admin.agents.createAgent({ agentId, settings: {} });
  await admin.agents.updateAgentSettings({ agentId, deviceId });
  const { turn } = await asAda.turns.startTurn({
    agentId,
    userId: "ada",
    messageId: "m1",
    input: said("message"),
  });
  const assigned = await takeOn(stream);
  await stream.complete(assigned, said("reply"));
  await asAda.turns.startTurn({ agentId, userId: "ada", messageId: "m2", input: said("message") });
  await stream.complete(await takeOn(stream), "", Outcome.FAILED, said("turn reason"));
  await vi.waitFor(async () => {
    expect((await asAda.runs.listQuestions({ runId: asking.workId })).questions).toHaveLength(1);
  });
  const { deliveries } = await admin.destinations.listDeliveries({ destinationId: "ops" });
  const { deliveries: posts } = await asAda.hooks.listHookDeliveries({ hookId: hook!.id });
  const { token } = await asAda.tokens.createToken({
    kind: TokenKind.PAT,
    label: "of ada",
    scopes: ["read"],
  });
  const { destinations } = await admin.destinations.listDestinations({});
  return {
    stream,
    ...{
      watcher: watcher.id,
      run: rich.workId,
      failed: failing.workId,
      late: late.workId,
      asking: asking.workId,
      ...reported,
    },
    ...{
      turn: turn!.id,
      conversation: turn!.conversationId,
      device: deviceId,
      agent: agentId,
      platform: "none",
    },
    ...{
      hook: hook!.id,
      hookDelivery: posts[0]!.id,
      destination: destinations[0]!.id,
      delivery: deliveries[0]?.id ?? "",
    },
    ...{ token: token!.id, signIn: "none" },
  } as never;
}

/**
 * Ends that the device reported, other than success and a last failure; each with words of its
 * program.
 */
async function reportEnds(home: {
  stream: DeviceStream;
  make: (name: string, more?: object) => Promise<{ id: string }>;
  start: (watcherId: string, input?: string) => Promise<{ workId: string; attemptToken: string }>;
  asAda: Clients;
}): Promise<Record<string, string>> {
  const { stream, make, start, asAda } = home;
  const end = async (
    name: string,
    more: object,
    told: object,
    before = async (_: { workId: string }) => {},
  ) => {
    // The input of a run without a device is the org's to read.
    const { workId, attemptToken } = await start((await make(name, more)).id, "none");
    await before({ workId });
    const words = { output: said("tail"), reason: said("reason") };
    stream.send({ case: "complete", value: { workId, attemptToken, ...words, ...told } as never });
    await stream.next("completionAck");
    return workId;
  };
  const cancel = async ({ workId }: { workId: string }) => {
    await asAda.runs.cancelRun({ runId: workId });
    await stream.next("cancel");
  };
  const again = { maxAttempts: 3 };
  return {
    timeout: await end("Slow", {}, { outcome: Outcome.TIMEOUT }),
    cancelled: await end("Ended", {}, { outcome: Outcome.CANCELLED }, cancel),
    retried: await end("Again", again, { outcome: Outcome.FAILED }),
    deferred: await end("Put off", {}, { outcome: Outcome.FAILED, retryAfter: { seconds: 3600n } }),
    selected: await end(
      "Anywhere",
      { ...again, deviceId: "", selector: 'os == "linux"' },
      { outcome: Outcome.FAILED },
    ),
  };
}

/** Requests of reading rpcs that name nothing, or several things. */
const more: Record<string, () => object[]> = {
  "RunService/GetRun": () => ofRuns(),
  "RunService/ExplainRun": () => ofRuns(),
  "RunService/WatchRun": () => ofRuns(),
  "RunService/GetTranscript": () => ofRuns(),
  "RunService/ListQuestions": () => [...ofRuns(), {}],
  "RunService/ListRuns": () => [{}, { deviceId: ids.device }],
  "RunService/ListWindows": () => [{}],
  "RunService/SearchRuns": () => [{ query: word }, { query: "output" }, { query: `"${word}"` }],
  "WatcherService/ListWatchers": () => [{ includeRecentRuns: true }],
  "FleetService/ListDevices": () => [{ includeLastRun: true }],
  "EventService/ListEvents": () => [{ pageSize: 200 }],
  "EventService/WatchEvents": () => [{ afterCursor: "0", includeTransient: true }, {}],
  "TurnService/ListTurns": () => [{ conversationId: ids.conversation }],
  "DestinationService/ListDeliveries": () => [{}],
};
const endsReported = ["timeout", "cancelled", "retried", "deferred", "selected"];
const ofRuns = () =>
  ["run", "failed", "late", "asking", ...endsReported].map((name) => ({ runId: ids[name] }));

/** Rpcs that end what the others look at, or wait for the device. */
const spoils =
  /\/(Delete|Cancel|Disconnect|Revoke|Remove|Rotate|SignOut|Pause|Stop|Connect$|EndSignIn|GetDeviceLog|Update)/;

/** What the person hears from each rpc: the places of the word. */
async function hear(secret: string): Promise<string[]> {
  const requests = requestsAbout(ids);
  const heard: string[] = [];
  for (const method of methods) {
    const name = shortName(method);
    if (spoils.test(name.slice(name.indexOf("/")))) continue;
    const about = requests[name];
    expect(about, `${name} has a request`).toBeDefined();
    for (const request of [about === "names nothing" ? {} : (about as object), ...(more[name]?.() ?? [])]) {
      const { answer } = await call(replica.url, method, secret, request, { isWhole: true });
      if (isSaid(answer)) heard.push(name);
    }
  }
  return [...new Set(heard)];
}

/** Whether the word is in the answer; bytes of live output are read as text. */
function isSaid(answer: unknown): boolean {
  const bytes = JSON.stringify(answer, (_key, value) =>
    value instanceof Uint8Array
      ? Buffer.from(value).toString()
      : typeof value === "bigint"
        ? String(value)
        : value,
  );
  return (bytes ?? "").includes(word) || textOf(answer).includes(word);
}

test("every rpc has a request", () => {
  const requests = requestsAbout(ids);
  expect(methods.map(shortName).filter((name) => !(name in requests))).toEqual([]);
});

test("there is something to hear: the owner hears it from all these rpcs", { timeout: 120_000 }, async () => {
  for (const [who, secret] of Object.entries(readers)) {
    expect([who, await hear(secret)]).toEqual([
      who,
      expect.arrayContaining([
        ...["RunService/GetRun", "RunService/WatchRun", "RunService/GetTranscript", "RunService/ListWindows"],
        ...["RunService/ListQuestions", "TurnService/GetTurn", "HookService/GetHookDelivery"],
      ]),
    ]);
  }
});

test("of an attempt whose run begins again the owner hears the reason, and the end of what it printed", async () => {
  const { runs } = createClients({ url: replica.url, token: readers["the owner"]! });
  for (const name of ["retried", "deferred", "selected"]) {
    const { run } = await runs.getRun({ runId: ids[name]! });
    expect([name, run!.reason, run!.pastAttempts]).toMatchObject([
      name,
      expect.stringContaining(said("reason")),
      [{ isReported: true, deviceId: ids.device, outputTail: said("tail") }],
    ]);
  }
});

test("nobody else hears a word of it from any rpc", { timeout: 180_000 }, async () => {
  for (const [who, secret] of Object.entries(strangers)) expect([who, await hear(secret)]).toEqual([who, []]);
});

test("nobody else hears a word of it from any tool of the MCP endpoint", async () => {
  const heardBy = async (secret: string) => {
    const client = new Client({ name: "test", version: "1" });
    const requestInit = { headers: { authorization: `Bearer ${secret}` } };
    await client.connect(
      new StreamableHTTPClientTransport(new URL(`${replica.url}/mcp`), { requestInit }) as never,
    );
    onTestFinished(() => client.close());
    const heard: string[] = [];
    for (const { name } of (await client.listTools()).tools.filter(
      (tool) => !/create|trigger|answer/.test(tool.name),
    )) {
      for (const args of [
        {},
        { watcher: ids.watcher },
        { watcher: "rich" },
        { run: ids.run },
        { run_id: ids.run },
      ]) {
        if (isSaid(await client.callTool({ name, arguments: args }))) heard.push(name);
      }
    }
    return [...new Set(heard)].sort();
  };
  expect(await heardBy(readers["the owner"]!)).toContain("last_result");
  for (const who of ["a member", "a viewer", "a service"]) {
    expect([who, await heardBy(strangers[who]!)]).toEqual([who, []]);
  }
});
