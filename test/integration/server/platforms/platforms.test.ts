/**
 * Platforms: one start for many calls, and secrets that are never shown. Starts are held open by
 * the test.
 */
import { Code } from "@connectrpc/connect";
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { afterEach, beforeEach, expect, test } from "vitest";
import { AgentService, PlatformStatus, UpsertOutcome } from "#gen/pinion/v1/agent_pb.js";
import { createKeyring, createReferences, newKey } from "../../../../src/secrets.ts";
import { toConnectError } from "../../../../src/server/access/interceptors/errors.ts";
import { createPlatformRunner, type PlatformRunner } from "../../../../src/server/platforms/runner.ts";
import type { PlatformStarter, StartablePlatform } from "../../../../src/server/platforms/starter.ts";
import { agentService } from "../../../../src/server/rpc/agents.ts";
import * as agents from "../../../../src/store/agents/agents.ts";
import * as sealing from "../../../../src/store/agents/platform-secrets.ts";
import * as platforms from "../../../../src/store/agents/platforms.ts";
import { type Database, type Db, openDatabase } from "../../../../src/store/pg/database.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";
import { useDatabase } from "../../../support/database.ts";
import { webhookPlatform } from "../../../support/platforms.ts";
import { startTestReplica } from "../../../support/server.ts";
import { addTenant, type Tenant } from "../../../support/tenants.ts";
import { type Api, startApi } from "../api.ts";

const database = useDatabase();
const key = newKey();
const secret = "12345:hunter2";
let tenant: Tenant;
let pools: Database[];
let apis: Api[];
let gates: PromiseWithResolvers<void>[];

beforeEach(async () => {
  pools = [];
  apis = [];
  gates = [];
  tenant = await addTenant(database.db, "acme");
  await agents.ensure(database.db, {
    orgId: "acme",
    agentId: "helper",
    name: "Helper",
    ownerId: null,
    settings: {},
  });
});
afterEach(async () => {
  for (const gate of gates) gate.resolve();
  for (const api of apis) await api.stop();
  for (const pool of pools) await pool.close();
});

/** A starter whose starts are ended by the test, with a record of the requested starts. */
function heldStarter() {
  const started: (StartablePlatform & { end(error?: Error): void })[] = [];
  const stopped: { stableId: string; epoch: number }[] = [];
  let under = 0;
  let most = 0;
  const starter: PlatformStarter = {
    start(platform) {
      most = Math.max(most, ++under);
      return new Promise((resolve, reject) => {
        started.push({
          ...platform,
          end: (error) => {
            under--;
            if (error) reject(error);
            else resolve();
          },
        });
      });
    },
    async stop({ stableId, epoch }) {
      stopped.push({ stableId, epoch });
    },
  };
  return {
    starter,
    started,
    stopped,
    mostAtOnce: () => most,
    nth: (n: number) => expect.poll(() => started.length, { timeout: 10_000 }).toBeGreaterThanOrEqual(n),
  };
}

/** A starter for tests of rows alone: every start succeeds. */
const readyStarter = (): PlatformStarter => ({ start: async () => {}, stop: async () => {} });

/** Wake-ups between replicas: one replica's events, as told by the feed. */
function hints() {
  const wakes = new Set<() => void>();
  return {
    subscribe(_orgId: string, wake: () => void) {
      wakes.add(wake);
      return () => wakes.delete(wake);
    },
    eventsAppended: () => wakes.forEach((wake) => void wake()),
    /** Resolves once so many calls wait for a start. */
    waiters: (n: number) => expect.poll(() => wakes.size, { timeout: 10_000 }).toBe(n),
  };
}

/** A replica's runner on separate connections. */
function replica(starter: PlatformStarter, options: { keys?: string; feed?: ReturnType<typeof hints> } = {}) {
  const pool = openDatabase({ url: database.url, poolMax: 25, applicationName: "pinion test" });
  pools.push(pool);
  const logged: string[] = [];
  const runner = createPlatformRunner({
    db: pool.db,
    log: createLogger({
      name: "test",
      level: "debug",
      destination: { write: (line: string) => void logged.push(line) },
    }),
    feed: options.feed ?? hints(),
    keyring: createKeyring(options.keys ?? key),
    references: createReferences(["acme"], { TEAM_BOT: secret, LOOP: "secret://LOOP" }),
    starter,
  });
  return { runner, logged, db: pool.db };
}

type Values = Partial<platforms.PlatformValues> & { stableId?: string };

function upsert(runner: PlatformRunner, values: Values = {}) {
  const { stableId = "chat", ...rest } = values;
  return runner.upsert(
    {
      orgId: "acme",
      actor: "user:me",
      stableId,
      expectedVersion: 0,
      isDryRun: false,
      values: {
        agentId: "helper",
        kind: "telegram",
        config: {},
        secrets: { bot_token: { value: secret } },
        ...rest,
      },
    },
    AbortSignal.timeout(15_000),
  );
}

const row = (stableId = "chat") => platforms.find(database.db, { orgId: "acme", stableId });

async function eventsOf(db: Db = database.db) {
  const rows = await db
    .selectFrom("event")
    .selectAll()
    .where("kind", "like", "platform.%")
    .orderBy("seq")
    .execute();
  return rows.map(({ kind, data }) => ({ kind, data }));
}
const kindsOf = async () => (await eventsOf()).map(({ kind }) => kind);

/** Blocks the commits of the org's writing transactions until release. */
async function holdCommits(): Promise<{ waiting(n: number): Promise<void>; release(): Promise<void> }> {
  const pool = openDatabase({ url: database.url, poolMax: 1, applicationName: "holder" });
  pools.push(pool);
  const gate = Promise.withResolvers<void>();
  gates.push(gate);
  const held = Promise.withResolvers<void>();
  const done = pool.db.transaction().execute(async (tx) => {
    await sql`select pg_advisory_xact_lock(hashtextextended('event acme', 0))`.execute(tx);
    held.resolve();
    await gate.promise;
  });
  await held.promise;
  return {
    waiting: (n) =>
      expect
        .poll(
          async () => {
            const { rows } = await sql<{ n: number }>`
              select count(*)::int as n from pg_stat_activity
              where datname = current_database() and wait_event_type = 'Lock'`.execute(database.db);
            return rows[0]!.n;
          },
          { timeout: 10_000 },
        )
        .toBeGreaterThanOrEqual(n),
    release: async () => {
      gate.resolve();
      await done;
    },
  };
}

const reasonOf = (call: Promise<unknown>) =>
  call.then(
    () => "ok",
    (error: { reason?: string; message: string }) => `${error.reason}: ${error.message}`,
  );

test("of twenty equal creations whose first has not committed yet, one creates and one starts", async () => {
  const held = heldStarter();
  const { runner } = replica(held.starter);
  const commits = await holdCommits();
  const calls = Array.from({ length: 20 }, () => upsert(runner));
  // One transaction has inserted and waits to commit; nineteen wait for its lock.
  await commits.waiting(20);
  await commits.release();
  await held.nth(1);
  held.started[0]!.end();
  const answers = await Promise.all(calls);
  expect(answers.map(({ outcome }) => outcome).sort()).toEqual(["created", ...Array(19).fill("noop")]);
  expect(answers.every(({ platform }) => platform.status === "running" && platform.version === 1)).toBe(true);
  expect(held.started).toHaveLength(1);
  expect(await kindsOf()).toEqual(["platform.created", "platform.started"]);
});

test("a creation that lost answers no sooner than the start of the one that won has ended", async () => {
  const held = heldStarter();
  const { runner } = replica(held.starter);
  const winner = upsert(runner);
  await held.nth(1);
  let isAnswered = false;
  const loser = upsert(runner).finally(() => {
    isAnswered = true;
  });
  // Another platform of the same org is not held up, and its answer comes after the loser's first
  // read.
  const other = upsert(runner, { stableId: "other" });
  await held.nth(2);
  held.started[1]!.end();
  await other;
  expect(isAnswered).toBe(false);
  held.started[0]!.end();
  expect((await winner).outcome).toBe("created");
  expect((await loser).outcome).toBe("noop");
});

test("if the start of the one that won fails, none that waited reports success, on whatever replica", async () => {
  const held = heldStarter();
  const [here, there] = [hints(), hints()];
  const first = replica(held.starter, { feed: here });
  const second = replica(held.starter, { feed: there });
  const winner = reasonOf(upsert(first.runner));
  await held.nth(1);
  const losers = [first, first, second, second].map(({ runner }) => reasonOf(upsert(runner)));
  await Promise.all([here.waiters(2), there.waiters(2)]);
  const commits = await holdCommits();
  held.started[0]!.end(new Error("telegram says no"));
  await commits.waiting(1);
  await commits.release();
  const why = 'failed_precondition: the platform "chat" did not start: telegram says no';
  expect(await Promise.all([winner, ...losers])).toEqual(Array(5).fill(why));
  expect(held.started).toHaveLength(1);
  expect(await row()).toMatchObject({ status: "failed", status_reason: "telegram says no" });
  expect(await kindsOf()).toEqual(["platform.created", "platform.failed"]);
  // A later call with the same config tries again.
  const again = upsert(second.runner);
  await held.nth(2);
  held.started[1]!.end();
  expect(await again).toMatchObject({ outcome: "noop", platform: { status: "running" } });
});

test("different updates at once come one after the other, and never start on top of each other", async () => {
  const held = heldStarter();
  const first = replica(held.starter);
  const second = replica(held.starter);
  const created = upsert(first.runner);
  await held.nth(1);
  held.started[0]!.end();
  await created;
  const updates = Array.from({ length: 6 }, (_, i) =>
    upsert((i % 2 === 0 ? first : second).runner, { config: { chat_id: String(i) } }),
  );
  for (let n = 2; n <= 7; n++) {
    await held.nth(n);
    held.started[n - 1]!.end();
  }
  const answers = await Promise.all(updates);
  expect(answers.every(({ outcome, willRestart }) => outcome === "updated" && willRestart)).toBe(true);
  expect(answers.map(({ platform }) => platform.version).sort()).toEqual([2, 3, 4, 5, 6, 7]);
  expect(held.mostAtOnce()).toBe(1);
  const last = answers.find(({ platform }) => platform.version === 7)!;
  expect(await row()).toMatchObject({ config: last.platform.config, version: 7, status: "running" });
  expect(held.started.at(-1)!.config).toEqual(last.platform.config);
  const epochs = held.started.map(({ epoch }) => epoch);
  expect(epochs).toEqual([...new Set(epochs)].sort((a, b) => a - b));
});

test("a platform that is stopped while it starts stays stopped, and what was started is ended", async () => {
  const held = heldStarter();
  const { runner } = replica(held.starter);
  const call = reasonOf(upsert(runner));
  await held.nth(1);
  const stopped = await runner.stop({ orgId: "acme", stableId: "chat", actor: "user:me" });
  expect(stopped.status).toBe("stopped");
  held.started[0]!.end();
  expect(await call).toMatch(/^aborted/);
  expect(await row()).toMatchObject({ status: "stopped" });
  expect(held.stopped.map(({ epoch }) => epoch)).toContain(held.started[0]!.epoch);
  // An update leaves the platform stopped; a start starts it.
  expect(await upsert(runner, { config: { a: "b" } })).toMatchObject({
    outcome: "updated",
    willRestart: false,
  });
  expect(held.started).toHaveLength(1);
  const start = runner.start(
    { orgId: "acme", stableId: "chat", actor: "user:me" },
    AbortSignal.timeout(9_000),
  );
  await held.nth(2);
  held.started[1]!.end();
  expect(await start).toMatchObject({ status: "running" });
});

test("a platform that is deleted while it starts leaves nothing, and who waited is told to do it again", async () => {
  const held = heldStarter();
  const feed = hints();
  const { runner, db } = replica(held.starter, { feed });
  const winner = reasonOf(upsert(runner));
  await held.nth(1);
  const { epoch } = held.started[0]!;
  const loser = reasonOf(upsert(runner));
  await feed.waiters(1);
  const removed = await platforms.remove(db, { orgId: "acme", stableId: "chat", actor: "user:me" });
  await runner.endAll([removed]);
  held.started[0]!.end();
  expect(await winner).toMatch(/^aborted/);
  expect(await loser).toMatch(/^aborted: .*deleted/);
  expect(held.stopped.map((stop) => stop.epoch)).toContain(epoch);
  expect(await row()).toBeUndefined();
  // The end of the earlier start does not end a later start of the same id.
  const next = upsert(runner);
  await held.nth(2);
  expect(held.started[1]!.epoch).toBeGreaterThan(epoch);
  held.started[1]!.end();
  await next;
});

test("who waited for a start that was stopped is told so, as who made it is, and the platform stays stopped", async () => {
  const held = heldStarter();
  const feed = hints();
  const { runner } = replica(held.starter, { feed });
  const winner = reasonOf(upsert(runner));
  await held.nth(1);
  const losers = [
    upsert(runner),
    upsert(runner, { config: { a: "b" } }),
    runner.start({ orgId: "acme", stableId: "chat", actor: "user:me" }, AbortSignal.timeout(9_000)),
  ].map(reasonOf);
  await feed.waiters(3);
  await runner.stop({ orgId: "acme", stableId: "chat", actor: "user:me" });
  for (const answer of await Promise.all(losers)) expect(answer).toMatch(/^aborted: .*stopped/);
  held.started[0]!.end();
  expect(await winner).toMatch(/^aborted/);
  expect(held.started).toHaveLength(1);
  expect(await row()).toMatchObject({ status: "stopped", version: 1, config: {} });
});

test("a call waits for as many starts as its time allows", async () => {
  const held = heldStarter();
  const { runner } = replica(held.starter);
  const calls = [upsert(runner)];
  await held.nth(1);
  for (let i = 0; i < 24; i++) calls.push(upsert(runner, { config: { chat_id: String(i) } }));
  const answers = Promise.all(calls);
  // Handles the rejection early, so that a refusal is not reported as unhandled while the test
  // waits.
  answers.catch(() => {});
  for (let n = 1; n <= 25; n++) {
    await Promise.race([held.nth(n), answers]);
    held.started[n - 1]!.end();
  }
  expect((await answers).map(({ platform }) => platform.version).sort((a, b) => a - b)).toEqual(
    Array.from({ length: 25 }, (_, i) => i + 1),
  );
});

test("a start whose end cannot be recorded is ended, and who waited for it is told at once", async () => {
  const held = heldStarter();
  const feed = hints();
  const { runner } = replica(held.starter, { feed });
  const winner = reasonOf(upsert(runner));
  await held.nth(1);
  const loser = reasonOf(upsert(runner));
  await feed.waiters(1);
  await sql`
    alter table platform add constraint never_runs check (status <> 'running') not valid`.execute(
    database.db,
  );
  try {
    held.started[0]!.end();
    expect(await winner).toMatch(/never_runs/);
    expect(await loser).toMatch(/^failed_precondition: .*could not be recorded/);
  } finally {
    await sql`alter table platform drop constraint never_runs`.execute(database.db);
  }
  expect(held.stopped.map(({ epoch }) => epoch)).toContain(held.started[0]!.epoch);
  expect(await row()).toMatchObject({ status: "failed" });
});

test("a text whose cut would fall into a character is stored: a setting in its event, a failure's reason", async () => {
  const held = heldStarter();
  const { runner } = replica(held.starter);
  const smiles = `a${"\u{1f600}".repeat(400)}`;
  const call = reasonOf(upsert(runner, { config: { greeting: smiles } }));
  await held.nth(1);
  held.started[0]!.end(new Error(`\0\ud83d${smiles}`));
  expect(await call).toMatch(/^failed_precondition: .*did not start: \ufffd\ufffda\u{1f600}/u);
  expect((await row())!.config).toEqual({ greeting: smiles });
  expect((await row())!.status_reason.isWellFormed()).toBe(true);
  expect(await kindsOf()).toEqual(["platform.created", "platform.failed"]);
});

test("half a surrogate pair in a setting is the caller's mistake", async () => {
  const { runner } = replica(readyStarter());
  const error = await upsert(runner, { config: { greeting: "\ud83d" } }).catch((refused: unknown) => refused);
  const log = createLogger({ name: "test", level: "silent" });
  expect(toConnectError(error, { log, rpc: "x/Y" })).toMatchObject({
    code: Code.InvalidArgument,
    rawMessage: expect.stringContaining("half a surrogate pair"),
  });
  expect(await row()).toBeUndefined();
});

test("a start whose replica died is read as failed, the next call starts anew, and a late outcome changes nothing", async () => {
  const held = heldStarter();
  const dead = replica(held.starter);
  const feed = hints();
  const alive = replica(held.starter, { feed });
  const lost = reasonOf(upsert(dead.runner));
  await held.nth(1);
  const waiting = reasonOf(upsert(alive.runner));
  await feed.waiters(1);
  await sql`update platform set start_deadline_at = now() - interval '1 second'`.execute(database.db);
  expect(await row()).toMatchObject({
    status: "failed",
    status_reason: expect.stringContaining("did not end in time"),
  });
  // Callers that waited for the start get the failure; a new call starts again.
  expect(await waiting).toMatch(/^failed_precondition: .*did not end in time/);
  const next = upsert(alive.runner);
  await held.nth(2);
  held.started[0]!.end();
  expect(await lost).toMatch(/^aborted/);
  expect(await row()).toMatchObject({ status: "starting" });
  held.started[1]!.end();
  expect(await next).toMatchObject({ platform: { status: "running" } });
  expect(await row()).toMatchObject({ status: "running" });
});

test("what is left out is cleared, what is empty is not left out, and equal calls change nothing", async () => {
  const { runner } = replica(readyStarter());
  await upsert(runner, {
    config: { a: "1", b: "2" },
    secrets: { bot_token: { value: secret }, webhook_secret: { value: "w" } },
  });
  const stored = (await row())!.secrets;
  const same = await upsert(runner, {
    config: { b: "2", a: "1" },
    secrets: { webhook_secret: "keep", bot_token: { value: secret } },
  });
  expect(same).toMatchObject({ outcome: "noop", willRestart: false, changed: [], platform: { version: 1 } });
  expect((await row())!.secrets).toEqual(stored);
  const next = await upsert(runner, { config: { a: "" }, secrets: { bot_token: { value: "other" } } });
  expect(next).toMatchObject({
    outcome: "updated",
    willRestart: true,
    changed: ["config.a", "config.b", "secrets.bot_token", "secrets.webhook_secret"],
    platform: { version: 2, config: { a: "" }, status: "running" },
  });
  expect(await reasonOf(upsert(runner, { secrets: { bot_token: "keep", webhook_secret: "keep" } }))).toMatch(
    /^invalid_argument: secrets.webhook_secret/,
  );
});

test("a failure's reason and the log show no secret, whatever the platform says", async () => {
  const held = heldStarter();
  const { runner, logged } = replica(held.starter);
  const call = reasonOf(upsert(runner));
  await held.nth(1);
  held.started[0]!.end(new Error(`GET https://api.example/bot${secret}/getMe: 401`));
  expect(await call).toContain("bot***/getMe: 401");
  expect((await row())!.status_reason).not.toContain("hunter2");
  expect(logged.join("")).toContain("***");
  expect(logged.join("") + JSON.stringify(await eventsOf())).not.toContain("hunter2");
  expect(JSON.stringify(await row())).not.toContain("hunter2");
});

test("a reference is kept as it is, looked up at every start, and one that the server lacks fails the start", async () => {
  const held = heldStarter();
  const { runner } = replica(held.starter);
  const call = upsert(runner, { secrets: { bot_token: { value: "secret://TEAM_BOT" } } });
  await held.nth(1);
  expect(held.started[0]!.secrets).toEqual({ bot_token: secret });
  held.started[0]!.end();
  await call;
  expect((await row())!.secrets).toEqual({ bot_token: "secret://TEAM_BOT" });
  expect(await reasonOf(upsert(runner, { secrets: { bot_token: { value: "secret://LOST" } } }))).toMatch(
    /^failed_precondition: .*secret:\/\/LOST.*PINION_SECRET_LOST/,
  );
  expect(await row()).toMatchObject({ status: "failed", version: 2 });
  expect(held.started).toHaveLength(1);
});

test("a reference that leads to a reference fails the start", async () => {
  const { runner } = replica(readyStarter());
  const call = upsert(runner, { secrets: { bot_token: { value: "secret://LOOP" } } });
  expect(await reasonOf(call)).toMatch(/^failed_precondition: .*secret:\/\/LOOP is a reference again/);
});

test("twenty creations and twenty starts at once on two real replicas make one creation and two starts", async () => {
  const env = { PINION_SECRET_KEYS: key };
  const { secret: token } = await addTenant(database.db, "local");
  const two = [await startTestReplica(database.url, env), await startTestReplica(database.url, env)];
  const clients = two.map(({ url }) => createClients({ url, token }));
  const all = <T>(call: (client: (typeof clients)[0]["agents"]) => Promise<T>) =>
    Promise.all(Array.from({ length: 20 }, (_, i) => call(clients[i % 2]!.agents)));
  const answers = await all((client) =>
    client.upsertPlatform({ ...webhookPlatform, stableId: "chat", agentId: "pinion-default" }),
  );
  const outcomes = answers.map(({ outcome }) => outcome).sort();
  expect(outcomes).toEqual([UpsertOutcome.CREATED, ...Array(19).fill(UpsertOutcome.NOOP)]);
  expect(answers.every(({ platform }) => platform!.status === PlatformStatus.RUNNING)).toBe(true);
  await clients[0]!.agents.stopPlatform({ stableId: "chat" });
  const started = await all((client) => client.startPlatform({ stableId: "chat" }));
  expect(started.every(({ platform }) => platform!.status === PlatformStatus.RUNNING)).toBe(true);
  expect(await kindsOf()).toEqual([
    "platform.created",
    "platform.started",
    "platform.stopped",
    "platform.starting",
    "platform.started",
  ]);
  for (const client of clients) client.close();
});

test("a ciphertext that was copied from another org's platform does not start", async () => {
  const { runner } = replica(readyStarter());
  await upsert(runner);
  await upsert(runner, { stableId: "copy" });
  await sql`update platform set secrets = (select secrets from platform where stable_id = 'chat') where stable_id = 'copy'`.execute(
    database.db,
  );
  await runner.stop({ orgId: "acme", stableId: "copy", actor: "user:me" });
  expect(
    await reasonOf(
      runner.start({ orgId: "acme", stableId: "copy", actor: "user:me" }, AbortSignal.timeout(5_000)),
    ),
  ).toMatch(/^failed_precondition: .*cannot be opened/);
});

test("a rotation seals all with the new key, leaves what it cannot open, and may be run again", async () => {
  const young = newKey();
  const foreign = newKey();
  const { runner } = replica(readyStarter());
  await upsert(runner, { config: { a: "1" } });
  await upsert(runner, { stableId: "ref", secrets: { bot_token: { value: "secret://TEAM_BOT" } } });
  await upsert(replica(readyStarter(), { keys: foreign }).runner, { stableId: "foreign" });
  const keyring = createKeyring(`${young},${key}`);
  const failed = [{ orgId: "acme", stableId: "foreign", field: "bot_token" }];
  expect(await sealing.rotateSecrets(database.db, keyring)).toEqual({ rotated: 1, failed });
  expect(await sealing.rotateSecrets(database.db, keyring)).toEqual({ rotated: 0, failed });
  const { runner: later } = replica(readyStarter(), { keys: young });
  expect(await upsert(later, { config: { a: "1" } })).toMatchObject({ outcome: "noop" });
  await later.stop({ orgId: "acme", stableId: "chat", actor: "user:me" });
  const started = await later.start(
    { orgId: "acme", stableId: "chat", actor: "user:me" },
    AbortSignal.timeout(5_000),
  );
  expect(started).toMatchObject({ status: "running", version: 1 });
  const rotated = await database.db
    .selectFrom("event")
    .selectAll()
    .where("kind", "=", "secrets.rotated")
    .execute();
  expect(rotated.map(({ data }) => data)).toEqual([{ count: 1, key_id: young.split(":")[0] }]);
});

/** The rpcs on a real port. */
async function serve(starter: PlatformStarter = readyStarter()) {
  const { runner, logged } = replica(starter);
  const log = createLogger({ name: "test", level: "silent" });
  const impl = agentService({ db: database.db, feed: hints(), runner, log, publicUrl: undefined, cell: "" });
  const api = await startApi(database.db, { more: [{ service: AgentService, impl: impl as never }] });
  apis.push(api);
  return { client: api.as(tenant.secret).client(AgentService), api, logged };
}

const codeOf = async (call: Promise<unknown>) =>
  call.then(
    () => "ok",
    (error: { code?: Code }) => Code[error.code!] ?? String(error),
  );

const wanted = {
  stableId: "chat",
  agentId: "helper",
  kind: "telegram",
  config: { chat_id: "7" },
  secrets: { bot_token: { kind: { case: "value" as const, value: secret } } },
};

test("answers, lists, events and logs name the secrets of a platform and show none of them", async () => {
  const { client, api, logged } = await serve();
  const created = await client.upsertPlatform(wanted);
  expect(created).toMatchObject({
    outcome: UpsertOutcome.CREATED,
    willRestart: false,
    platform: {
      status: PlatformStatus.RUNNING,
      config: { chat_id: "7" },
      secrets: [{ name: "bot_token", reference: "" }],
    },
  });
  const updated = await client.upsertPlatform({
    ...wanted,
    secrets: { bot_token: { kind: { case: "value", value: `${secret}!` } } },
  });
  expect(updated).toMatchObject({ outcome: UpsertOutcome.UPDATED, willRestart: true });
  expect(updated.changedFields).toEqual(["secrets.bot_token"]);
  const listed = await client.listPlatforms({});
  const events = await eventsOf();
  expect(events).toMatchObject([
    {
      kind: "platform.created",
      data: { platform_id: "chat", secrets: { bot_token: "***" }, config: { chat_id: "7" } },
    },
    { kind: "platform.started" },
    { kind: "platform.updated", data: { changed: ["secrets.bot_token"], secrets: { bot_token: "***" } } },
    { kind: "platform.started" },
  ]);
  const shown = [
    created.platform,
    updated.platform,
    listed.platforms,
    events,
    await row(),
    api.logged,
    logged,
  ];
  expect(
    JSON.stringify(shown, (_key, value) => (typeof value === "bigint" ? String(value) : value)),
  ).not.toContain("hunter2");
});

test("what can be known to be wrong is refused before anything is written, and the field is named", async () => {
  const { client } = await serve();
  const value = (text: string) => ({ kind: { case: "value" as const, value: text } });
  for (const [change, code] of [
    [{ stableId: "chаt" }, "InvalidArgument"],
    [{ stableId: "" }, "InvalidArgument"],
    [{ stableId: "a".repeat(101) }, "InvalidArgument"],
    [{ kind: "icq" }, "InvalidArgument"],
    [{ secrets: {} }, "InvalidArgument"],
    [{ secrets: { bot_token: { kind: { case: undefined } } } }, "InvalidArgument"],
    [{ secrets: { bot_token: value("secret://lower") } }, "InvalidArgument"],
    [{ config: { bot_token: "1" } }, "InvalidArgument"],
    [{ config: { db_password: "1" } }, "InvalidArgument"],
    [{ config: { proxy: "http://me:hunter2@proxy" } }, "InvalidArgument"],
    [{ kind: "constructor" }, "InvalidArgument"],
    [{ kind: "webhook", secrets: {}, config: { url: "https://hooks.example/x" } }, "InvalidArgument"],
    [{ config: { "Not A Key": "1" } }, "InvalidArgument"],
    [{ agentId: "nobody" }, "NotFound"],
    [{ expectedVersion: 3 }, "Aborted"],
  ] as const) {
    expect([change, await codeOf(client.upsertPlatform({ ...wanted, ...change }))]).toEqual([change, code]);
  }
  expect(await eventsOf()).toEqual([]);
  await client.upsertPlatform(wanted);
  await agents.ensure(database.db, { orgId: "acme", agentId: "b", name: "b", ownerId: null, settings: {} });
  expect(await codeOf(client.upsertPlatform({ ...wanted, agentId: "b" }))).toBe("AlreadyExists");
  expect(
    await codeOf(
      client.upsertPlatform({
        ...wanted,
        kind: "slack",
        secrets: { bot_token: value("1"), signing_secret: value("2") },
      }),
    ),
  ).toBe("FailedPrecondition");
});

test("a dry run of a platform says what would be, and leaves nothing behind", async () => {
  const { client } = await serve();
  expect(await client.upsertPlatform({ ...wanted, dryRun: true })).toMatchObject({
    outcome: UpsertOutcome.CREATED,
  });
  expect((await client.listPlatforms({})).platforms).toEqual([]);
  await client.upsertPlatform(wanted);
  expect(await client.upsertPlatform({ ...wanted, dryRun: true })).toMatchObject({
    outcome: UpsertOutcome.NOOP,
  });
  expect(await client.upsertPlatform({ ...wanted, config: {}, dryRun: true })).toMatchObject({
    outcome: UpsertOutcome.UPDATED,
    willRestart: true,
    changedFields: ["config.chat_id"],
  });
  expect((await client.listPlatforms({})).platforms).toMatchObject([
    { version: 1, config: { chat_id: "7" } },
  ]);
  expect(await eventsOf()).toHaveLength(2);
});

test("a batch answers for each platform by itself: a refused one, and one with a bad text, keep no other back", async () => {
  const held = heldStarter();
  const { runner } = replica(held.starter);
  await agents.ensure(database.db, {
    orgId: "acme",
    agentId: "other",
    name: "Other",
    ownerId: null,
    settings: {},
  });
  const wanted = (stableId: string, values: Values = {}) => ({
    actor: "user:me",
    stableId,
    expectedVersion: 0,
    isDryRun: false,
    values: {
      agentId: "helper",
      kind: "telegram",
      config: {},
      secrets: { bot_token: { value: secret } },
      ...values,
    },
  });
  const call = runner.upsertAll(
    {
      orgId: "acme",
      wanted: [
        wanted("one"),
        wanted("two", { agentId: "nobody" }),
        wanted("three", { config: { title: "\ud800" } }),
        // Twice the same, and then another agent's.
        wanted("one"),
        wanted("one", { agentId: "other" }),
        wanted("four"),
      ],
    },
    AbortSignal.timeout(15_000),
  );
  await held.nth(2);
  expect(held.started.map(({ stableId }) => stableId).sort()).toEqual(["four", "one"]);
  for (const { end } of held.started) end();
  const results = (await call).map((result) =>
    result.status === "fulfilled" ? result.value.outcome : (result.reason.reason ?? result.reason.code),
  );
  expect(results).toEqual(["created", "not_found", "22P02", "noop", "already_exists", "created"]);
  expect((await row("four"))?.status).toBe("running");
  expect((await kindsOf()).toSorted()).toEqual([
    "platform.created",
    "platform.created",
    "platform.started",
    "platform.started",
  ]);
});

test("twenty equal batches at once on two replicas, each in another order, make one creation and one start of each", async () => {
  const held = heldStarter();
  const people = [replica(held.starter), replica(held.starter)];
  const ids = ["a", "b", "c", "d", "e"];
  const turned = (n: number) => ids.map((_, index) => ids[(index + n) % ids.length]!);
  const calls = Array.from({ length: 20 }, (_, n) =>
    people[n % 2]!.runner.upsertAll(
      {
        orgId: "acme",
        wanted: turned(n).map((stableId) => ({
          actor: "user:me",
          stableId,
          expectedVersion: 0,
          isDryRun: false,
          values: {
            agentId: "helper",
            kind: "telegram",
            config: {},
            secrets: { bot_token: { value: secret } },
          },
        })),
      },
      AbortSignal.timeout(20_000),
    ),
  );
  await held.nth(5);
  for (const { end } of held.started) end();
  const results = (await Promise.all(calls)).flat();
  expect(results.every(({ status }) => status === "fulfilled")).toBe(true);
  const outcomes = results.map((result) => result.status === "fulfilled" && result.value.outcome);
  expect(outcomes.filter((outcome) => outcome === "created")).toHaveLength(5);
  expect(held.started).toHaveLength(5);
}, 30_000);

test("a batch whose starts fail says so of those and of no other", async () => {
  const held = heldStarter();
  const { runner } = replica(held.starter);
  const call = runner.upsertAll(
    {
      orgId: "acme",
      wanted: ["good", "bad"].map((stableId) => ({
        actor: "user:me",
        stableId,
        expectedVersion: 0,
        isDryRun: false,
        values: {
          agentId: "helper",
          kind: "telegram",
          config: {},
          secrets: { bot_token: { value: secret } },
        },
      })),
    },
    AbortSignal.timeout(15_000),
  );
  await held.nth(2);
  for (const { stableId, end } of held.started)
    end(stableId === "bad" ? new Error("no such bot") : undefined);
  const [good, bad] = await call;
  expect(good).toMatchObject({ status: "fulfilled", value: { platform: { status: "running" } } });
  expect(bad).toMatchObject({
    status: "rejected",
    reason: { reason: "failed_precondition", message: expect.stringContaining("no such bot") },
  });
  expect((await row("bad"))?.status).toBe("failed");
});

test("a batch over the wire tells its refusals with code and field, and another org's agent is not there", async () => {
  const { secret: token } = await addTenant(database.db, "local");
  const { url } = await startTestReplica(database.url, { PINION_SECRET_KEYS: key });
  const clients = createClients({ url, token });
  await clients.agents.createAgent({ agentId: "ada" });
  const telegram = (stableId: string, agentId: string, token = secret) => ({
    stableId,
    agentId,
    kind: "telegram",
    config: {} as Record<string, string>,
    secrets: { bot_token: { kind: { case: "value", value: token } } } as const,
  });
  const { results } = await clients.agents.batchUpsertPlatforms({
    platforms: [
      { ...webhookPlatform, stableId: "good", agentId: "ada" },
      telegram("foreign", "helper"),
      { ...telegram("open", "ada"), config: { password: "x" } },
      telegram("lost", "ada", "secret://NOT_THERE"),
    ],
  });
  expect(results.map(({ kind }) => kind)).toMatchObject([
    { case: "done", value: { outcome: UpsertOutcome.CREATED } },
    { case: "refused", value: { code: Code.NotFound, field: "agent_id" } },
    { case: "refused", value: { code: Code.InvalidArgument, field: "config.password" } },
    {
      case: "refused",
      value: { code: Code.FailedPrecondition, message: expect.stringContaining("NOT_THERE") },
    },
  ]);
  clients.close();
});

test("another org neither sees nor stops nor deletes a platform, and may use the same stable id", async () => {
  const { client, api } = await serve();
  await client.upsertPlatform(wanted);
  const other = await addTenant(database.db, "other");
  const theirs = api.as(other.secret).client(AgentService);
  expect((await theirs.listPlatforms({})).platforms).toEqual([]);
  for (const call of ["startPlatform", "stopPlatform", "deletePlatform"] as const) {
    expect(await codeOf(theirs[call]({ stableId: "chat" }))).toBe("NotFound");
  }
  expect(await codeOf(theirs.upsertPlatform(wanted))).toBe("NotFound");
  const { outcome } = await theirs.upsertPlatform({ ...wanted, agentId: "pinion-default" });
  expect(outcome).toBe(UpsertOutcome.CREATED);
  expect(
    await codeOf(
      theirs.upsertPlatform({
        ...wanted,
        agentId: "pinion-default",
        secrets: { bot_token: { kind: { case: "value", value: "secret://TEAM_BOT" } } },
      }),
    ),
  ).toBe("FailedPrecondition");
});

test("ten thousand platforms are listed page by page, and go with their agent, each with its event", async () => {
  const held = heldStarter();
  const { client } = await serve(held.starter);
  await sql`insert into platform (org_id, stable_id, agent_id, kind, status)
    select 'acme', 'p-' || lpad(i::text, 5, '0'), 'helper', 'webhook', 'running' from generate_series(1, 10000) i`.execute(
    database.db,
  );
  const seen: string[] = [];
  let pageToken = "";
  do {
    const page = await client.listPlatforms({ pageSize: 500, pageToken, agentId: "helper" });
    seen.push(...page.platforms.map(({ stableId }) => stableId));
    pageToken = page.nextPageToken;
  } while (pageToken !== "");
  expect(seen).toHaveLength(10_000);
  expect(new Set(seen).size).toBe(10_000);
  await client.deleteAgent({ agentId: "helper" });
  expect(held.stopped).toHaveLength(10_000);
  expect((await client.listPlatforms({})).platforms).toEqual([]);
  expect((await kindsOf()).filter((kind) => kind === "platform.deleted")).toHaveLength(10_000);
});
