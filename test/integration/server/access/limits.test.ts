/** Limits on the rate of calls and on an org's resources, on real replicas. */
import { status } from "@grpc/grpc-js";
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { expect, onTestFinished, test } from "vitest";
import { RunStatus, SkipReason } from "#gen/pinion/v1/run_pb.js";
import { recordDue } from "../../../../src/scheduler/slots/record-due.ts";
import { createQuotas } from "../../../../src/store/people/orgs/quotas.ts";
import { transaction } from "../../../../src/store/pg/database.ts";
import { newToken } from "../../../../src/values/ids.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, dial, enrolDevice } from "../../../support/device.ts";
import { hourly, putSchedule, seedDevice, seedOrg, seedWatcher } from "../../../support/rows.ts";
import { startTestReplica, type TestReplica } from "../../../support/server.ts";

const database = useDatabase();

const outcomeOf = (call: Promise<unknown>) =>
  call.then(
    () => "ok",
    (error: { reason: string }) => error.reason,
  );

const refusalOf = (call: Promise<unknown>) =>
  call.then(
    () => undefined,
    (error: { reason: string; rawMessage: string; retryAfterMs: number }) => ({
      reason: error.reason,
      message: error.rawMessage,
      retryAfterMs: error.retryAfterMs,
    }),
  );

function withToken(replica: TestReplica, token: string) {
  const clients = createClients({ url: replica.url, token });
  onTestFinished(() => clients.close());
  return clients;
}

/** Manual watchers, fired only by a test. */
async function addWatchers(replica: TestReplica, count: number, more: { schedule?: string } = {}) {
  const created = [];
  for (let index = 0; index < count; index++) {
    const { watcher } = await replica.clients.watchers.createWatcher({
      slug: `watcher-${index}`,
      spec: { name: `Watcher ${index}`, prompt: "Say it.", agentId: "pinion-default", ...more },
    });
    created.push(watcher!.id);
  }
  return created;
}

/** Locks the table while `work` runs: answers meanwhile have not read the table. */
async function whileLocked(table: "token" | "run", work: () => Promise<void>): Promise<void> {
  await database.db.transaction().execute(async (tx) => {
    await sql`lock table ${sql.table(table)} in access exclusive mode`.execute(tx);
    await work();
  });
}

test("a token that calls too often is refused with the limit and when to come back, and no other token is", async () => {
  const replica = await startTestReplica(database.url, {
    PINION_REQUESTS_PER_TOKEN: "5",
    PINION_REQUESTS_BURST: "10",
  });
  const { secret } = await replica.clients.tokens.createToken({
    kind: 3,
    label: "other",
    scopes: ["read"],
  });
  const calls = await Promise.all(
    Array.from({ length: 30 }, () => refusalOf(replica.clients.agents.listAgents({}))),
  );
  const refused = calls.filter((call) => call !== undefined);
  expect(refused.length).toBeGreaterThan(10);
  expect(refused[0]).toMatchObject({
    reason: "resource_exhausted",
    message: expect.stringContaining("more than 5 calls a second"),
    retryAfterMs: expect.any(Number),
  });
  expect(refused[0]!.retryAfterMs).toBeLessThanOrEqual(200);
  await withToken(replica, secret).agents.listAgents({});
  // And as soon as the replica was notified.
  await expect.poll(() => outcomeOf(replica.clients.agents.listAgents({})), { timeout: 5_000 }).toBe("ok");
});

test("beyond an address's failures of a minute its good tokens are let in, known or not, and its bad ones get no further", async () => {
  const replica = await startTestReplica(database.url, { PINION_FAILURES_PER_ADDRESS: "5" });
  const { secret } = await replica.clients.tokens.createToken({ kind: 3, label: "other", scopes: ["read"] });
  const attempt = (token: string) => outcomeOf(withToken(replica, token).agents.listAgents({}));
  for (let count = 0; count < 30; count++) expect(await attempt(newToken("pat"))).toBe("unauthenticated");
  expect(await attempt(secret)).toBe("ok");
  expect(await outcomeOf(replica.clients.device.enroll(enrolment))).toBe("resource_exhausted");
  const device = await enrolDevice(
    createClients({ url: (await startTestReplica(database.url)).url, token: replica.token }),
  );
  await connect(replica.url, device);
});

test("a token that was found to be no good is refused from memory, and suspects nobody else", async () => {
  const replica = await startTestReplica(database.url, { PINION_FAILURES_PER_ADDRESS: "3" });
  const bad = newToken("dev");
  const attempt = () => outcomeOf(withToken(replica, bad).agents.listAgents({}));
  expect(await attempt()).toBe("unauthenticated");
  await whileLocked("token", async () => {
    for (let count = 0; count < 10; count++) expect(await attempt()).toBe("unauthenticated");
  });
  expect(await outcomeOf(replica.clients.device.enroll(enrolment))).toBe("unauthenticated");
});

const enrolment = { joinCode: "AAAA-BBBB-CCCC", installId: "install-1", os: 2, label: "x" };

test.each(["bare", "connect"])("device streams knock at the same door (%s)", async (kind) => {
  const replica = await startTestReplica(database.url, {
    PINION_FAILURES_PER_ADDRESS: "3",
    PINION_REQUESTS_PER_TOKEN: "1",
    PINION_REQUESTS_BURST: "2",
    PINION_DEVICE_STREAMS: kind,
  });
  const device = await enrolDevice(withToken(replica, replica.token));
  const codes = [];
  for (let attempt = 0; attempt < 4; attempt++)
    codes.push((await dial(replica.url, device.token).refused()).code);
  expect(codes.filter((code) => code === status.RESOURCE_EXHAUSTED).length).toBeGreaterThan(0);
  const failures = [];
  for (let attempt = 0; attempt < 4; attempt++) {
    failures.push((await dial(replica.url, newToken("dev")).refused()).code);
  }
  expect(failures).toEqual([
    // Beyond the limit, tokens are looked up more slowly, since a token may be valid.
    ...Array.from({ length: 4 }, () => status.UNAUTHENTICATED),
  ]);
});

test("failed join codes count as failed attempts", async () => {
  const replica = await startTestReplica(database.url, { PINION_FAILURES_PER_ADDRESS: "3" });
  const enroll = () => outcomeOf(replica.clients.device.enroll(enrolment));
  expect([await enroll(), await enroll(), await enroll(), await enroll()]).toEqual([
    "unauthenticated",
    "unauthenticated",
    "unauthenticated",
    "resource_exhausted",
  ]);
});

test("triggers, retries and backfills are refused while the org has as many active runs as it may", async () => {
  const replica = await startTestReplica(database.url, { PINION_RUNS_PER_ORG: "2" });
  const { watchers, runs } = replica.clients;
  const [one, two, three] = await addWatchers(replica, 3);
  const { watcher: daily } = await watchers.createWatcher({
    slug: "daily",
    spec: { name: "Daily", prompt: "x", agentId: "pinion-default", schedule: "0 9 * * *" },
  });
  const { run: ended } = await watchers.triggerWatcher({ watcherId: three! });
  await runs.cancelRun({ runId: ended!.id });
  await watchers.triggerWatcher({ watcherId: one! });
  const { run } = await watchers.triggerWatcher({ watcherId: two! });
  const full = {
    reason: "resource_exhausted",
    message: expect.stringContaining("the org is at its limit of 2 active runs"),
  };
  expect(await refusalOf(watchers.triggerWatcher({ watcherId: three! }))).toMatchObject(full);
  // The repeated trigger makes no run.
  const again = await watchers.triggerWatcher({ watcherId: two! });
  expect([again.alreadyQueued, again.run!.id]).toEqual([true, run!.id]);
  expect(await refusalOf(runs.retryRun({ runId: ended!.id }))).toMatchObject(full);
  expect(
    await refusalOf(watchers.backfillWatcher({ watcherId: daily!.id, start: at(-3), end: at(-1) })),
  ).toMatchObject(full);
  await runs.cancelRun({ runId: run!.id });
  await expect
    .poll(() => outcomeOf(watchers.triggerWatcher({ watcherId: three! })), { timeout: 5_000 })
    .toBe("ok");
});

test("turns are refused while the org has as many live ones as it may, and taken again when one has ended", async () => {
  const replica = await startTestReplica(database.url, { PINION_TURNS_PER_ORG: "2" });
  const { turns } = replica.clients;
  const start = (messageId: string) => turns.startTurn({ messageId, userId: "ada", input: "hello" });
  const { turn } = await start("one");
  await start("two");
  expect(await refusalOf(start("three"))).toMatchObject({
    reason: "resource_exhausted",
    message: expect.stringContaining("the org is at its limit of 2 live turns"),
  });
  await turns.cancelTurn({ turnId: turn!.id });
  await expect.poll(() => outcomeOf(start("three")), { timeout: 5_000 }).toBe("ok");
});

const at = (days: number) => ({
  seconds: BigInt(Math.floor(Date.now() / 1_000) + days * 86_400),
  nanos: 0,
});

test("a slot that comes while the org is full is one skipped run that says so, and the schedule moves on", async () => {
  const replica = await startTestReplica(database.url, { PINION_RUNS_PER_ORG: "1" });
  const { watchers, runs } = replica.clients;
  const [busy] = await addWatchers(replica, 1);
  await watchers.triggerWatcher({ watcherId: busy! });
  const { watcher } = await watchers.createWatcher({
    slug: "due",
    spec: { name: "Due", prompt: "x", agentId: "pinion-default", schedule: "0 9 * * *" },
  });
  await sql`
    update schedule_position set next_slot_at = date_trunc('minute', now()), next_due_at = date_trunc('minute', now())
    where watcher_id = ${watcher!.id}`.execute(database.db);
  // Every change of a watcher wakes the materializer.
  await watchers.updateWatcher({
    watcherId: busy!,
    spec: { schedule: "0 0 1 1 *" },
    updateMask: { paths: ["schedule"] },
  });
  await expect
    .poll(async () => (await runs.listRuns({ watcherId: watcher!.id })).runs, { timeout: 10_000 })
    .toMatchObject([
      {
        status: RunStatus.SKIPPED,
        skipReason: SkipReason.LIMIT,
        reason: "the org was at its limit of 1 active runs",
      },
    ]);
  const { watcher: after } = await watchers.getWatcher({ watcherId: watcher!.id });
  expect(Number(after!.nextSlotAt!.seconds) * 1_000).toBeGreaterThan(Date.now());
});

test("a slot that an edit of its watcher records while the org is full is skipped, too", async () => {
  const { db } = database;
  const { schedule, slot } = hourly();
  const watcher = await seedWatcher(db, await seedDevice(db), { schedule });
  await putSchedule(db, watcher, slot(0));
  const quotas = createQuotas({ runs: 0, watchers: 1, devices: 1, tokens: 1, turns: 1 });
  const recorded = await transaction(db, (tx) => recordDue(tx, watcher.orgId, watcher.watcherId, quotas));
  expect(recorded).toMatchObject([{ status: "skipped", skipReason: "limit" }]);
});

test("an org's own numbers go before the server's", async () => {
  const replica = await startTestReplica(database.url, { PINION_WATCHERS_PER_ORG: "1" });
  await sql`update org set metadata = metadata || '{"watchers_max": 3}' where id = 'local'`.execute(
    database.db,
  );
  await addWatchers(replica, 3);
  expect(
    await refusalOf(
      replica.clients.watchers.createWatcher({
        slug: "one-more",
        spec: { name: "x", prompt: "x", agentId: "pinion-default" },
      }),
    ),
  ).toMatchObject({
    reason: "resource_exhausted",
    message: "the org is at its limit of 3 watchers; delete some, or have PINION_WATCHERS_PER_ORG raised",
  });
  await replica.clients.watchers.deleteWatcher({ watcherId: "watcher-0" });
  await expect
    .poll(
      () =>
        outcomeOf(
          replica.clients.watchers.createWatcher({
            slug: "one-more",
            spec: { name: "x", prompt: "x", agentId: "pinion-default" },
          }),
        ),
      { timeout: 5_000 },
    )
    .toBe("ok");
});

test("join codes and tokens are bounded, devices' own tokens not counted", async () => {
  const replica = await startTestReplica(database.url, {
    PINION_DEVICES_PER_ORG: "2",
    PINION_TOKENS_PER_ORG: "3",
  });
  const { fleet, tokens, device } = replica.clients;
  const { joinCode } = await fleet.createJoinCode({});
  await device.enroll({ ...enrolment, joinCode });
  await fleet.createJoinCode({});
  expect(await refusalOf(fleet.createJoinCode({}))).toMatchObject({
    reason: "resource_exhausted",
    message: expect.stringContaining("2 devices, with open join codes"),
  });
  const create = () => tokens.createToken({ kind: 3, label: "x", scopes: ["read"] });
  // The token of the first start, and the token with which this test calls.
  const before = await goodTokens();
  for (let count = before; count < 3; count++) await create();
  expect(await refusalOf(create())).toMatchObject({
    reason: "resource_exhausted",
    message: expect.stringContaining("3 tokens of people and services"),
  });
});

async function goodTokens(): Promise<number> {
  const { rows } = await sql<{ n: number }>`
    select count(*)::int as n from token where kind <> 'dev' and revoked_at is null`.execute(database.db);
  return rows[0]!.n;
}

test("an org holds so many streams open and no more, and one that ended makes room", async () => {
  const replica = await startTestReplica(database.url, { PINION_STREAMS_PER_ORG: "2" });
  const open = async () => {
    const controller = new AbortController();
    const stream = replica.clients.events.watchEvents({ afterCursor: "0" }, { signal: controller.signal });
    const first = await stream[Symbol.asyncIterator]().next();
    expect(first.done).toBe(false);
    return controller;
  };
  const one = await open();
  const two = await open();
  expect(await refusalOf(open())).toMatchObject({
    reason: "resource_exhausted",
    message: expect.stringContaining("the org holds 2 streams open on this replica"),
  });
  one.abort();
  let three: AbortController | undefined;
  await expect
    .poll(
      async () => {
        three = await open().catch(() => undefined);
        return three !== undefined;
      },
      { timeout: 5_000 },
    )
    .toBe(true);
  two.abort();
  three!.abort();
});

test("as long as there is room, a limit costs a trigger no statement", async () => {
  await startTestReplica(database.url);
  const quotas = createQuotas({ runs: 1_000, turns: 1, watchers: 1, devices: 1, tokens: 1 });
  await quotas.requireRoom(database.db, "runs", "local");
  await whileLocked("run", async () => {
    for (let call = 0; call < 500; call++) await quotas.requireRoom(database.db, "runs", "local");
  });
});

test("callers at one moment share a count, and no more of them pass than there is room for", async () => {
  const { db } = database;
  await seedOrg(db, "local");
  const quotas = createQuotas({ runs: 1, turns: 3, watchers: 1, devices: 1, tokens: 1 });
  const counts: string[] = [];
  const counting = db.withPlugin({
    transformQuery: ({ node }) => node,
    async transformResult({ result }) {
      counts.push("count");
      return result;
    },
  });
  const asked = Array.from({ length: 20 }, () => quotas.requireRoom(counting, "turns", "local"));
  const answers = await Promise.allSettled(asked);
  expect(answers.filter(({ status }) => status === "fulfilled")).toHaveLength(3);
  // One for all, before each knew that there was room for three.
  expect(counts).toHaveLength(1);
});
