/**
 * Hooks: a verified post from outside becomes one run, on any replica and however often the post is
 * repeated.
 */
import { createHmac, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { request } from "node:http";
import { toJson } from "@bufbuild/protobuf";
import { ValueSchema } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { sql } from "kysely";
import { Webhook } from "standardwebhooks";
import { beforeAll, expect, test, vi } from "vitest";
import { HookKind, HookOutcome } from "#gen/pinion/v1/hook_pb.js";
import { RunSource } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice, type Identity } from "../../../support/device.ts";
import { hold, untilBlocked } from "../../../support/locks.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { getRun, takeOn } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const env = {
  PINION_SECRET_KEYS: `k:${Buffer.alloc(32, 7).toString("base64")}`,
  PINION_SECRET_ELSEWHERE: "kept-by-the-operator",
};
let [one, two]: TestReplica[] = [];
let laptop: Identity;

const examples = JSON.parse(
  readFileSync("node_modules/@octokit/webhooks-examples/api.github.com/index.json", "utf8"),
) as { name: string; examples: Record<string, unknown>[] }[];
const push = examples
  .find(({ name }) => name === "push")!
  .examples.find(({ commits }) => (commits as unknown[]).length > 0)!;

beforeAll(async () => {
  one = await openTestReplica(database.url, env);
  two = await openTestReplica(database.url, env);
  laptop = await enrolDevice(one.clients);
  return () => Promise.all([one!.stop(), two!.stop()]);
});

type More = { prompt?: string; filter?: string; mapping?: string; deviceId?: string };

async function hookOf(kind: HookKind, more: More = {}) {
  const { prompt = "look", deviceId = laptop.deviceId, ...spec } = more;
  const { watcher } = await one!.clients.watchers.createWatcher({
    slug: `w-${randomUUID().slice(0, 8)}`,
    spec: { name: "Hooked", prompt, deviceId },
  });
  return one!.clients.hooks.createHook({ spec: { watcherId: watcher!.slug, kind, ...spec } });
}

async function post(replica: TestReplica, path: string, body: string, headers: Record<string, string>) {
  const response = await fetch(`${replica.url}${path}`, {
    method: "POST",
    body,
    headers: { "content-type": "application/json", ...headers },
  });
  return { ...((await response.json()) as Record<"outcome" | "run_id", string>), status: response.status };
}

const github = (body: string, secret: string, id: string = randomUUID(), event = "push") => ({
  "x-hub-signature-256": `sha256=${createHmac("sha256", secret).update(body).digest("hex")}`,
  "x-github-delivery": id,
  "x-github-event": event,
});

test("a push of GitHub that comes twice to two replicas at once is one run, whose prompt holds the commit", async () => {
  const { hook, secret, url } = await hookOf(HookKind.GITHUB, {
    prompt: "Review {{ input.head_commit.id }}: {{ input.head_commit.message }}",
    filter: 'event == "push" && size(input.commits) > 0',
  });
  const body = JSON.stringify(push);
  const headers = github(body, secret);
  const answers = await Promise.all(
    [one!, two!, one!, two!].map((replica) => post(replica, url, body, headers)),
  );
  expect(new Set(answers.map(({ status, outcome }) => `${status} ${outcome}`))).toEqual(
    new Set(["202 started"]),
  );
  expect(new Set(answers.map(({ run_id }) => run_id)).size).toBe(1);
  const { deliveries } = await one!.clients.hooks.listHookDeliveries({ hookId: hook!.id });
  expect(deliveries).toMatchObject([{ outcome: HookOutcome.STARTED, duplicates: 3, event: "push" }]);
  const stream = await connect(one!.url, laptop);
  const assignment = await takeOn(stream);
  const commit = push.head_commit as { id: string };
  expect(assignment.watcher!.prompt).toContain(`Review \`${commit.id}\``);
  const run = await getRun(one!.clients, { workId: assignment.workId });
  expect(run).toMatchObject({ source: RunSource.HOOK, origin: { hookSlug: hook!.slug } });
  await stream.complete(assignment);
  // After the run's end, too, a sender that lost the answer gets the same run.
  expect(await post(two!, url, body, headers)).toMatchObject({ status: 202, run_id: assignment.workId });
  stream.end();
});

test("the run of a delivery is claimed as it is recorded, if its device is connected to the replica", async () => {
  const box = await enrolDevice(one!.clients);
  const { url, secret } = await hookOf(HookKind.BEARER, { deviceId: box.deviceId });
  const stream = await connect(one!.url, box);
  const deliver = async () => {
    const answer = await post(one!, url, "{}", { authorization: `Bearer ${secret}` });
    expect(answer).toMatchObject({ status: 202, outcome: "started" });
    const assignment = await takeOn(stream);
    const { rows } = await sql<{ isOneWrite: boolean }>`
      select claimed_at = created_at as "isOneWrite" from run where id = ${assignment.workId}`.execute(
      database.db,
    );
    await stream.complete(assignment);
    return rows[0]?.isOneWrite;
  };
  // The session has looked for earlier work once, and knows from then on that none waits.
  await vi.waitFor(async () => expect(await deliver()).toBe(true));
  expect(await deliver()).toBe(true);
  stream.end();
});

test("what is not verified is turned away and leaves no delivery; the hook says when, and why", async () => {
  const { hook, secret, url } = await hookOf(HookKind.GITHUB);
  const body = JSON.stringify(push);
  expect((await post(one!, url, body, github(body, "another secret"))).status).toBe(401);
  expect((await post(one!, url, `${body} `, github(body, secret))).status).toBe(401);
  expect((await post(one!, `/hooks/${randomUUID()}`, body, github(body, secret))).status).toBe(404);
  expect((await post(one!, url, "x".repeat(1_048_577), github("x", secret))).status).toBe(413);
  const { deliveries } = await one!.clients.hooks.listHookDeliveries({ hookId: hook!.id });
  expect(deliveries).toEqual([]);
  const known = (await one!.clients.hooks.getHook({ hookId: hook!.slug })).hook!;
  expect(known.lastRefusedReason).toMatch(/does not match/);
});

test("a secret that was rotated is good for its overlap, and is stored sealed", async () => {
  const { hook, secret, url } = await hookOf(HookKind.BEARER);
  const rotated = await one!.clients.hooks.rotateHookSecret({ hookId: hook!.id });
  const call = (token: string) => post(one!, url, '{"a":1}', { authorization: `Bearer ${token}` });
  expect([(await call(secret)).status, (await call(rotated.secret)).status]).toEqual([202, 202]);
  await one!.clients.hooks.rotateHookSecret({ hookId: hook!.id, overlap: { seconds: 0n } });
  expect([(await call(secret)).status, (await call(rotated.secret)).status]).toEqual([401, 401]);
  const row = await database.db
    .selectFrom("hook" as never)
    .selectAll()
    .executeTakeFirst();
  expect(JSON.stringify(row)).toContain("enc:v1:");
  expect(JSON.stringify(row)).not.toContain(secret);
});

test("an edit that changes nothing leaves the version, and a secret of the server is looked up for each delivery", async () => {
  const { hook, secret, url } = await hookOf(HookKind.BEARER);
  const update = (given: string, dryRun = false) =>
    one!.clients.hooks.updateHook({
      hookId: hook!.id,
      spec: {},
      updateMask: { paths: [] },
      secret: given,
      dryRun,
    });
  const call = async (token: string) =>
    (await post(one!, url, "{}", { authorization: `Bearer ${token}` })).status;
  expect((await update("")).hook!.version).toBe(1);
  expect((await update(secret)).hook!.version).toBe(1);
  expect((await update("another-secret-16", true)).hook!.version).toBe(2);
  expect([await call("another-secret-16"), (await update(secret)).hook!.version]).toEqual([401, 1]);
  const named = await update("secret://ELSEWHERE");
  expect(named.hook).toMatchObject({ version: 2, secretReference: "secret://ELSEWHERE" });
  expect([await call("kept-by-the-operator"), await call(secret)]).toEqual([202, 202]);
  // The old secret is no longer valid, and the server lacks the named secret: senders try again.
  const rotated = await one!.clients.hooks.rotateHookSecret({
    ...{ hookId: hook!.id, secret: "secret://MISSING", overlap: { seconds: 0n } },
  });
  expect([rotated.secret, await call("secret://MISSING")]).toEqual(["", 503]);
  await expect(update("secret://lower-case-name")).rejects.toThrow(/secret: write secret:\/\/NAME/);
});

test("a filter decides, its errors are shown with the delivery, a mapping makes the input, and a delivery is replayed", async () => {
  const { hook, secret, url } = await hookOf(HookKind.BEARER, {
    filter: 'input.action == "opened"',
    mapping: '{"n": input.number, "who": input.user.name}',
  });
  const { hookId } = { hookId: hook!.id };
  const call = (body: unknown) =>
    post(one!, url, JSON.stringify(body), { authorization: `Bearer ${secret}` });
  expect((await call({ action: "closed" })).outcome).toBe("filtered");
  expect((await call({})).outcome).toBe("failed");
  const started = await call({ action: "opened", number: 7, user: { name: "ann" } });
  const run = await getRun(one!.clients, { workId: started.run_id! });
  expect(toJson(ValueSchema, run.input!)).toEqual({ n: 7, who: "ann" });
  const { deliveries } = await one!.clients.hooks.listHookDeliveries({ hookId });
  expect(deliveries.map(({ outcome, reason }) => [outcome, reason])).toEqual([
    [HookOutcome.STARTED, ""],
    [HookOutcome.FAILED, "filter: field not found: action"],
    [HookOutcome.FILTERED, "the filter is false"],
  ]);
  await one!.clients.runs.cancelRun({ runId: run.id });
  await one!.clients.hooks.updateHook({
    hookId,
    spec: { filter: "" },
    updateMask: { paths: ["filter"] },
  });
  const replay = { hookId, id: deliveries[0]!.id, requestId: "again" };
  const { delivery } = await one!.clients.hooks.replayHookDelivery(replay);
  expect(delivery).toMatchObject({ outcome: HookOutcome.STARTED, replayOf: deliveries[0]!.id });
  expect((await two!.clients.hooks.replayHookDelivery(replay)).delivery!.runId).toBe(delivery!.runId);
  await expect(hookOf(HookKind.BEARER, { filter: "inputs.a" })).rejects.toThrow(
    /spec\.filter: there is no "inputs"/,
  );
});

/** Signatures of each convention: right, wrong, and, if the convention has a time, too old. */
const conventions: [
  name: string,
  kind: HookKind,
  sign: (given: { secret: string; body: string; at: number; id: string }) => Record<string, string>,
  hasTime: boolean,
][] = [
  [
    "Standard Webhooks",
    HookKind.STANDARD,
    ({ secret, body, at, id }) => ({
      "webhook-id": id,
      "webhook-timestamp": String(at),
      "webhook-signature": new Webhook(secret).sign(id, new Date(at * 1_000), body),
    }),
    true,
  ],
  [
    "GitLab",
    HookKind.GITLAB,
    ({ secret, id }) => ({ "x-gitlab-token": secret, "idempotency-key": id, "x-gitlab-event": "Push Hook" }),
    false,
  ],
  [
    "Slack",
    HookKind.SLACK,
    ({ secret, body, at }) => ({
      "x-slack-request-timestamp": String(at),
      "x-slack-signature": `v0=${createHmac("sha256", secret).update(`v0:${at}:${body}`).digest("hex")}`,
    }),
    true,
  ],
  [
    "a bearer token",
    HookKind.BEARER,
    ({ secret, id }) => ({ authorization: `Bearer ${secret}`, "idempotency-key": id }),
    false,
  ],
];

test.each(conventions)(
  "%s: signed it starts one run, however often it comes; another secret and an old moment are turned away",
  async (_name, kind, sign, hasTime) => {
    const { secret, url } = await hookOf(kind);
    const [id, now] = [randomUUID(), Math.floor(Date.now() / 1_000)];
    const body = JSON.stringify({ event_id: id, type: "event_callback" });
    const headers = sign({ secret, body, at: now, id });
    const first = await post(one!, url, body, headers);
    expect(first).toMatchObject({ status: 202, outcome: "started" });
    expect(await post(two!, url, body, headers)).toMatchObject({ status: 202, run_id: first.run_id });
    const stranger =
      kind === HookKind.STANDARD ? `whsec_${Buffer.alloc(32, 1).toString("base64")}` : "x".repeat(32);
    expect((await post(one!, url, body, sign({ secret: stranger, body, at: now, id }))).status).toBe(401);
    expect((await post(one!, url, body, {})).status).toBe(401);
    if (!hasTime) return;
    for (const at of [now - 360, now + 360]) {
      expect((await post(one!, url, body, sign({ secret, body, at, id }))).status).toBe(401);
    }
  },
);

test("a secret in the address is the address; another one leads nowhere, and Slack's challenge is answered", async () => {
  const { url } = await hookOf(HookKind.SECRET_URL);
  expect(await post(one!, url, "{}", {})).toMatchObject({ status: 202, outcome: "started" });
  expect((await post(one!, `${url}x`, "{}", {})).status).toBe(401);
  expect((await post(one!, url.slice(0, url.lastIndexOf("/")), "{}", {})).status).toBe(401);
  const slack = await hookOf(HookKind.SLACK);
  const body = JSON.stringify({ type: "url_verification", challenge: "say this" });
  const at = Math.floor(Date.now() / 1_000);
  const [, , sign] = conventions.find(([name]) => name === "Slack")!;
  const answer = await post(one!, slack.url, body, sign({ secret: slack.secret, body, at, id: "" }));
  expect(answer).toMatchObject({ status: 200, challenge: "say this" });
});

/** Posts a body in chunks, without saying its length; returns the status that the sender reads. */
function postInChunks(
  url: string,
  chunks: Iterable<string>,
  headers: Record<string, string>,
): Promise<number> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { method: "POST", headers }, (response) => {
      response.resume();
      resolve(response.statusCode!);
    });
    asked.on("error", reject);
    for (const chunk of chunks) asked.write(chunk);
    asked.end();
  });
}

test("a body of one byte too many, in chunks and without a length, is answered 413; one of just the limit is taken", async () => {
  const { hook, secret, url } = await hookOf(HookKind.BEARER, { mapping: '{"bytes": size(input.a)}' });
  const headers = { authorization: `Bearer ${secret}`, "content-type": "application/json" };
  const body = (bytes: number) => [`{"a":"`, ..."x".repeat(bytes - 8).match(/.{1,65536}/g)!, `"}`];
  expect(await postInChunks(`${one!.url}${url}`, body(1_048_576), headers)).toBe(202);
  expect(await postInChunks(`${one!.url}${url}`, body(1_048_577), headers)).toBe(413);
  expect(await postInChunks(`${one!.url}${url}`, body(3_000_000), headers)).toBe(413);
  const { deliveries } = await one!.clients.hooks.listHookDeliveries({ hookId: hook!.id });
  expect(deliveries.map(({ bodyBytes }) => bodyBytes)).toEqual([1_048_576]);
});

test("an event's name with a NUL is taken in: nobody sends the same again for ever", async () => {
  const { hook, secret, url } = await hookOf(HookKind.STANDARD);
  const body = '{"type":"a\\u0000b"}';
  const id = randomUUID();
  const headers = {
    "webhook-id": id,
    "webhook-timestamp": String(Math.floor(Date.now() / 1_000)),
    "webhook-signature": new Webhook(secret).sign(id, new Date(), body),
  };
  expect((await post(one!, url, body, headers)).status).toBe(202);
  const { deliveries } = await one!.clients.hooks.listHookDeliveries({ hookId: hook!.id });
  expect(deliveries.map(({ event }) => event)).toEqual(["a\ufffdb"]);
});

test("numbers that JavaScript rounds come to the prompt with all their digits", async () => {
  const box = await enrolDevice(one!.clients);
  const { secret, url } = await hookOf(HookKind.BEARER, {
    deviceId: box.deviceId,
    prompt: "Order {{ input.id }}, {{ input.all.1 }}",
    filter: 'input.id == "9007199254740993" && int(input.id) > 0',
  });
  const body = '{"id":9007199254740993,"all":[1.5,-123456789012345678901234567890],"far":1e999}';
  const { run_id } = await post(one!, url, body, { authorization: `Bearer ${secret}` });
  const run = await getRun(one!.clients, { workId: run_id! });
  expect(toJson(ValueSchema, run.input!)).toEqual({
    ...{ id: "9007199254740993", all: [1.5, "-123456789012345678901234567890"], far: "1e999" },
  });
  const stream = await connect(one!.url, box);
  const { watcher } = await takeOn(stream);
  expect(watcher!.prompt).toContain("Order `9007199254740993`, `-123456789012345678901234567890`");
  stream.end();
});

test("bodies of other types are refused with the reason or taken as what they are; a costly filter fails its delivery alone", async () => {
  const { hook, secret, url } = await hookOf(HookKind.BEARER, {
    filter: "!has(input.all) || input.all.all(x, input.all.all(y, input.all.all(z, x + y + z >= 0)))",
  });
  const call = (body: string, type: string) =>
    post(one!, url, body, { authorization: `Bearer ${secret}`, "content-type": type });
  expect((await call('{"a":1}', "text/plain")).outcome).toBe("started");
  expect((await call("payload=%7B%22a%22%3A2%7D", "application/x-www-form-urlencoded")).status).toBe(202);
  expect((await call("a=1&b=2", "application/x-www-form-urlencoded; charset=utf-8")).status).toBe(202);
  expect((await call("--x\r\n\r\n--x--", "multipart/form-data; boundary=x")).status).toBe(400);
  expect((await call("<a/>", "application/xml")).status).toBe(400);
  expect((await call('{"a":1', "application/json")).status).toBe(400);
  expect((await call(`${"[".repeat(200)}${"]".repeat(200)}`, "application/json")).status).toBe(400);
  const startedAt = performance.now();
  const costly = JSON.stringify({ all: Array.from({ length: 400 }, (_, n) => n) });
  expect((await call(costly, "application/json")).outcome).toBe("failed");
  expect(performance.now() - startedAt).toBeLessThan(20_000);
  const { deliveries } = await one!.clients.hooks.listHookDeliveries({ hookId: hook!.id });
  expect(deliveries[0]!.reason).toMatch(/^filter: .*steps/);
});

test("a hook that is made for a watcher, or moved to one, that is being deleted is refused as not found", async () => {
  const gone = await hookOf(HookKind.BEARER);
  const { hook: moved } = await hookOf(HookKind.BEARER);
  const { watcherId } = gone.hook!.spec!;
  const { watcher } = await one!.clients.watchers.getWatcher({ watcherId });
  const clients = one!.clients.hooks;
  await using removal = await hold(database.db);
  await sql`delete from watcher where id = ${watcher!.id}`.execute(removal.tx);
  const asked = [
    clients.createHook({ slug: "late", spec: { watcherId, kind: HookKind.BEARER } }),
    clients.updateHook({ hookId: moved!.slug, spec: { watcherId }, updateMask: { paths: ["watcher_id"] } }),
  ];
  const answered = Promise.allSettled(asked);
  await untilBlocked(database.db, asked.length);
  await removal.commit();
  const refused = expect.objectContaining({ reason: expect.objectContaining({ code: Code.NotFound }) });
  expect(await answered).toEqual([refused, refused]);
});
