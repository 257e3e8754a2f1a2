/**
 * An org moves from one cell to another while its devices are connected: nothing is lost or
 * doubled, wherever the move is killed, and its old tokens tell the way.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes, randomUUID } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { connectDevice, createClients, enroll, silentLogger } from "@pinion/client";
import { sql } from "kysely";
import pg from "pg";
import { afterAll, beforeAll, describe, expect, inject, onTestFinished, test } from "vitest";
import { Os } from "#gen/pinion/v1/device_pb.js";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { storeLate } from "../../../../src/scheduler/endings/run-endings.ts";
import { toConnectError } from "../../../../src/server/access/interceptors/errors.ts";
import { digestOf, prepareCopy } from "../../../../src/store/moves/copy.ts";
import type { Step } from "../../../../src/store/moves/ends.ts";
import { passFence } from "../../../../src/store/moves/fence.ts";
import { abortMove, forgetMoved, moveOrg, planMove } from "../../../../src/store/moves/move.ts";
import { tablesOf } from "../../../../src/store/moves/tables.ts";
import { transaction } from "../../../../src/store/pg/database.ts";
import { migrate } from "../../../../src/store/pg/migrate.ts";
import { closePast } from "../../../../src/store/work/service/partitions.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";
import { withCell } from "../../../../src/values/ids.ts";
import { administer, createTestDatabase, type TestDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { missingDoor, startFrontDoor } from "../../../support/front-door.ts";
import { eventually } from "../../../support/processes.ts";
import { freePort } from "../../../support/programs.ts";
import { reportOf } from "../../../support/rows.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { policy } from "../../../support/surroundings.ts";
import { takeOn } from "../../../support/work.ts";

type Cell = { name: string; database: TestDatabase; url: string; replica: TestReplica; probePort: number };

const role = `mover_${randomBytes(4).toString("hex")}`;
const log = createLogger({ name: "test", level: "silent" });
let cells: [Cell, Cell];

/**
 * A cell whose replicas connect as an ordinary role: row-level security does not bind a superuser.
 */
async function openCell(name: string): Promise<Cell> {
  const database = await createTestDatabase({ isEmpty: true });
  const url = new URL(database.url);
  await administer(`alter database ${url.pathname.slice(1)} owner to ${role}`);
  [url.username, url.password] = [role, "secret"];
  await migrate(url.href, log);
  const probePort = await freePort();
  const replica = await openTestReplica(url.href, {
    PINION_CELL: name,
    PINION_PROBE_PORT: String(probePort),
    PINION_TRUSTED_PROXIES: "1",
    // As in production: longer than a move takes to close the org.
    PINION_HEARTBEAT_TTL_MS: "60000",
    PINION_SECRET_KEYS: `k:${Buffer.alloc(32, 7).toString("base64")}`,
  });
  return { name, database, url: url.href, replica, probePort };
}

beforeAll(async () => {
  await administer(`create role ${role} login password 'secret'`);
  for (const own of ["pinion_server", "pinion_scheduler"]) await administer(`grant ${own} to ${role}`);
  cells = [await openCell("eu1"), await openCell("eu2")];
}, 120_000);
afterAll(async () => {
  for (const { replica, database } of cells ?? []) {
    await replica.stop();
    await database.drop();
  }
  await administer(`drop role ${role}`);
});

/** A new org in the first cell, and calls as its owner. Its id is new at each try of a test. */
async function addOrg(name: string) {
  const [{ replica }] = cells;
  const orgId = `${name}-${randomBytes(3).toString("hex")}`;
  const { secret } = await replica.clients.orgs.createOrg({
    orgId,
    name: orgId,
    ownerEmail: `owner@${orgId}.example`,
  });
  const clients = clientsAt(replica.url, secret);
  return { orgId, token: secret, clients };
}

function clientsAt(url: string, token: string, ca?: Buffer) {
  const clients = createClients({ url, token, ...(ca ? { tls: { ca } } : {}) });
  onTestFinished(() => clients.close());
  return clients;
}

const moving = (orgId: string) => ({
  ...{ sourceUrl: cells[0].url, targetUrl: cells[1].url, orgId, cell: "eu2" },
});

/** The digests of an org's tables in a cell, behind the fence too. */
async function digestsIn(cell: Cell, orgId: string) {
  const client = new pg.Client({ connectionString: cell.url });
  await client.connect();
  try {
    await prepareCopy(client);
    await passFence(client, orgId);
    const found: Record<string, string> = {};
    for (const table of await tablesOf(client)) {
      const { rows, digest } = await digestOf(client, table, { orgId, people: new Map() });
      if (rows > 0) found[table.name] = `${rows} ${digest}`;
    }
    return found;
  } finally {
    await client.end();
  }
}

/** Tables whose rows change as a move ends: the times to be heard of begin anew. */
const timed = ["presence", "run", "turn", "conversation", "question"];
const without = (digests: Record<string, string>, names: string[]) =>
  Object.fromEntries(Object.entries(digests).filter(([name]) => !names.includes(name)));

test("the tables of an org are all tables with an org_id but the journal of moves, parents first", async () => {
  const client = new pg.Client({ connectionString: cells[0].url });
  await client.connect();
  const tables = await tablesOf(client).finally(() => client.end());
  const { rows } = await sql<{ table: string }>`
    select distinct c.relname as "table" from pg_class c join pg_attribute a on a.attrelid = c.oid
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
      and (a.attname = 'org_id' or c.relname = 'org')`.execute(cells[0].database.db);
  const names = tables.map(({ name }) => name);
  expect([...names, "org_move"].sort()).toEqual(rows.map(({ table }) => table).sort());
  for (const [child, parent] of [
    ["run_start", "org"],
    ["token", "device"],
    ["sign_in", "token"],
    ["watcher_after", "watcher"],
  ] as const)
    expect(names.indexOf(child)).toBeGreaterThan(names.indexOf(parent));
});

test("killed at every step and run again it converges, and a known person keeps their id there", async () => {
  const [one, two] = cells;
  const { orgId, token, clients } = await addOrg("steps");
  await clients.orgs.addMember({ email: "both@example.com", role: 3, name: "Both" });
  // The same person in the other cell, with another id.
  await two.replica.clients.orgs.addMember({ email: "both@example.com", role: 3, name: "Both" });
  const device = await enrolDevice(clients);
  const stream = await connect(one.replica.url, device);
  const { watcher } = await clients.watchers.createWatcher({
    slug: "w",
    spec: { name: "W", prompt: "look", deviceId: device.deviceId },
  });
  await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  await stream.complete(await takeOn(stream), "first");
  await clients.watchers.triggerWatcher({ watcherId: watcher!.id });
  const running = await takeOn(stream);

  const before = await planMove(moving(orgId));
  expect(before.tables.find(({ table }) => table === "run_finished")!.rows).toBe(1);
  const steps: Step[] = [
    "checked",
    "closing",
    "drained",
    "fenced",
    "prepared",
    "copied",
    "counted",
    "switched",
  ];
  for (const step of steps) {
    const killed = moveOrg({
      ...moving(orgId),
      onProgress(progress) {
        if (progress.step === step) throw new Error(`killed when ${step}`);
      },
    });
    await expect(killed).rejects.toThrow(`killed when ${step}`);
    if (step === "fenced") {
      const refused = await clients.watchers.listWatchers({}).catch((error) => error);
      expect([refused.code, refused.retryAfterMs]).toEqual([Code.Unavailable, 2_000]);
      // A call that was let in before the fence stood.
      const late = await lateWrite(one, orgId);
      expect(late).toMatchObject({
        code: Code.Unavailable,
        rawMessage: expect.stringContaining("takes no calls meanwhile"),
      });
      await expect(createAgain(one, orgId)).rejects.toMatchObject(taken);
    }
    if (step === "prepared") await expect(createAgain(two, orgId)).rejects.toMatchObject(taken);
  }
  // The stream was asked to leave.
  await stream.next("drain");
  const done = await moveOrg(moving(orgId));
  expect(done.rows).toBeGreaterThan(10);
  const again = await moveOrg(moving(orgId));
  expect(again.rows).toBe(0);
  const [here, there] = [await digestsIn(one, orgId), await digestsIn(two, orgId)];
  // A member with another id is another row.
  const changed = ["member", ...timed];
  expect(without(there, changed)).toEqual(without(here, changed));
  expect(Object.keys(there)).toEqual(Object.keys(here));

  // The first cell tells the way.
  const moved = await clients.orgs.getOrg({}).catch((error) => error);
  expect([moved.code, moved.metadata.get("pinion-cell")]).toEqual([Code.FailedPrecondition, "eu2"]);
  await expect(createAgain(one, orgId)).rejects.toThrow(`"${orgId}" exists already, in the cell "eu2"`);
  const redirected = await connectOnce(one.replica.url, device);
  expect(redirected.cell).toBe("eu2");
  // The second has the org, its people, and its run under way.
  const arrived = clientsAt(two.replica.url, withCell(token, "eu2"));
  const { members } = await arrived.orgs.listMembers({});
  const { members: others } = await two.replica.clients.orgs.listMembers({});
  const idOf = (list: typeof members) => list.find(({ email }) => email === "both@example.com")!.userId;
  expect(idOf(members)).toBe(idOf(others));
  const continued = await connect(two.replica.url, device, {
    held: [{ workId: running.workId, attemptToken: running.attemptToken, state: 1 }],
  });
  expect(continued.welcome.verdicts.map(({ verdict }) => verdict)).toEqual([1]);
  await continued.complete(running, "second");
  const { runs } = await arrived.runs.listRuns({ watcherId: watcher!.id });
  expect(runs.map(({ status }) => status)).toEqual([RunStatus.COMPLETED, RunStatus.COMPLETED]);

  await forgetMoved(moving(orgId));
  expect(await digestsIn(one, orgId)).toEqual({});
  await expect(clients.orgs.getOrg({})).rejects.toMatchObject({ code: Code.Unauthenticated });
});

test("the counts of an org's past days move with it, and go on with a late result there", async () => {
  const [one, two] = cells;
  const { orgId, token, clients } = await addOrg("counts");
  const device = await enrolDevice(clients);
  const { watcher } = await clients.watchers.createWatcher({
    slug: "w",
    spec: { name: "W", prompt: "look", deviceId: device.deviceId },
  });
  const [yesterday, today] = [1, 0].map((back) =>
    new Date(Date.now() - back * 86_400_000).toISOString().slice(0, 10),
  );
  const name = `run_finished_${yesterday!.replaceAll("-", "")}`;
  await sql`create table if not exists ${sql.table(name)} partition of run_finished
    for values from (${sql.lit(`${yesterday} 00:00:00+00`)}) to (${sql.lit(`${today} 00:00:00+00`)})`.execute(
    one.database.db,
  );
  const [runId, attemptToken] = [randomUUID(), randomUUID()];
  await sql`insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
      notification, source, window_start, window_end, due_at, created_at, timeout_ms, max_attempts, status, attempt,
      attempt_token, reason, past_attempts, duration_ms, finished_at)
    values (${orgId}, ${runId}, ${watcher!.id}, 1, 'a', 1, ${device.deviceId}, 'test', 'none', 'manual', now() - interval '1 hour', now(), now(),
      now(), 1000, 1, 'timeout', 1, ${attemptToken}, '', '[]', 1000, ${`${yesterday} 10:30:00+00`}::timestamptz)`.execute(
    one.database.db,
  );
  await transaction(one.database.db, (tx) => closePast(tx, { countedFrom: 1 }));
  const ofYesterday = {
    start: timestampFromDate(new Date(`${yesterday}T00:00:00Z`)),
    end: timestampFromDate(new Date(`${today}T00:00:00Z`)),
  };
  const count = async (of: typeof clients) => {
    const { counts, busiest } = await of.runs.summarizeRuns(ofYesterday);
    const sums = await sql<{
      runs: number;
    }>`select count(*)::int as runs from run_count_hour where org_id = ${orgId}`.execute(
      (of === clients ? one : two).database.db,
    );
    expect(sums.rows[0]!.runs).toBeGreaterThan(0);
    return [
      counts.map(({ status, runs }) => [status, runs]),
      busiest.map(({ runs, busy }) => [runs, busy?.nanos]),
    ];
  };
  expect(await count(clients)).toEqual([[[RunStatus.TIMEOUT, 1n]], [[1n, 0]]]);
  await moveOrg(moving(orgId));
  const arrived = clientsAt(two.replica.url, withCell(token, "eu2"));
  expect(await count(arrived)).toEqual([[[RunStatus.TIMEOUT, 1n]], [[1n, 0]]]);
  const late = reportOf({ orgId, deviceId: device.deviceId, runId, attemptToken }, { durationMs: 5 });
  await transaction(two.database.db, (tx) => storeLate(tx, [late], policy));
  expect(await count(arrived)).toEqual([[[RunStatus.COMPLETED, 1n]], [[1n, 5_000_000]]]);
});

const taken = { code: Code.AlreadyExists };
/** The operator makes another org of this name. */
function createAgain({ replica }: Cell, orgId: string) {
  return replica.clients.orgs.createOrg({ orgId, name: orgId, ownerEmail: "late@example.com" });
}

/** The answer to a call whose insert meets the fence. */
async function lateWrite({ url }: Cell, orgId: string) {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const write = client.query(
    "insert into member (org_id, user_id, role) select $1, id, 'member' from \"user\"",
    [orgId],
  );
  const error = await write.catch((error: unknown) => error).finally(() => client.end());
  return toConnectError(error, { log, rpc: "x/Y" });
}

async function connectOnce(url: string, identity: Parameters<typeof connect>[1]) {
  const { dial } = await import("../../../support/device.ts");
  return dial(url, identity.token).next("drain");
}

test("a move that is given up leaves the org where it was, and nothing in the other cell", async () => {
  const [, two] = cells;
  const { orgId, clients } = await addOrg("undecided");
  const killed = moveOrg({
    ...moving(orgId),
    onProgress({ step, table }) {
      if (step === "copied" && table === undefined) throw new Error("killed");
    },
  });
  await expect(killed).rejects.toThrow("killed");
  await abortMove(moving(orgId));
  expect(await digestsIn(two, orgId)).toEqual({});
  const { watcher } = await clients.watchers.createWatcher({
    slug: "w",
    spec: { name: "W", prompt: "look" },
  });
  expect(watcher!.slug).toBe("w");
  await expect(abortMove(moving(orgId))).rejects.toThrow("no move");
  await expect(moveOrg({ ...moving(orgId), cell: "us9" })).rejects.toThrow('belongs to the cell "eu2"');
  await expect(moveOrg({ ...moving("nobody") })).rejects.toThrow('there is no org "nobody"');
});

describe.skipIf(missingDoor("haproxy"))("behind one address", () => {
  test("programs go on through a move that is killed with SIGKILL: each result is stored once, none is lost", async () => {
    const [one, two] = cells;
    const { orgId, token, clients: direct } = await addOrg("busy");
    const door = await startFrontDoor("haproxy", {
      eu1: { url: one.replica.url, probePort: one.probePort },
      eu2: { url: two.replica.url, probePort: two.probePort },
    });
    onTestFinished(() => door.close());
    const ca = Buffer.from(door.ca);
    const clients = clientsAt(door.url, token, ca);
    /** Each program's end, by the run's id. */
    const ledger = new Map<string, number>();
    const cellsSeen = new Set<string>();
    for (const name of ["a", "b", "c"]) {
      const { joinCode } = await clients.fleet.createJoinCode({});
      const stateDir = mkdtempSync(join(tmpdir(), "pinion-moving-"));
      const identity = await enroll({ url: door.url, joinCode, label: name, stateDir, tls: { ca } });
      const device = connectDevice({
        ...{ url: door.url, tls: { ca }, stateDir, logger: silentLogger, os: Os.LINUX },
        ...{ token: identity.token, installId: identity.installId, agentKinds: ["test"] },
        // Shorter than the patience of this test: each refusal during the fence doubles the
        // ceiling of the wait, and four commands take long enough for the usual 30 s.
        timing: { backoffCapMs: 2_000 },
        async onAssignment(assignment) {
          await new Promise((resolve) => setTimeout(resolve, 300));
          ledger.set(assignment.workId, (ledger.get(assignment.workId) ?? 0) + 1);
          return { outcome: "completed", output: `of ${assignment.workId}` };
        },
        onEvent(event) {
          if (event.type === "drained" && event.cell) cellsSeen.add(`${name} ${event.cell}`);
        },
      });
      onTestFinished(async () => {
        await device.close({ graceMs: 0, flushMs: 0 }).catch(() => {});
        rmSync(stateDir, { recursive: true, force: true });
      });
      await clients.watchers.createWatcher({
        slug: name,
        spec: {
          name,
          prompt: "work",
          deviceId: identity.deviceId,
          schedule: "@every 1s",
        },
      });
    }
    const { hook, url: hookUrl } = await clients.hooks.createHook({
      spec: { watcherId: "a", kind: HookKind.BEARER },
    });
    expect(hook!.id).not.toBe("");
    await eventually(() => ledger.size >= 5 || undefined, "runs before the move");

    for (const step of ["fenced", "copied", "switched"]) await killedAt(step, orgId);
    expect((await commandOf(orgId, "--json")).code).toBe(0);
    const atSwitch = ledger.size;
    await eventually(
      () => (ledger.size >= atSwitch + 5 && cellsSeen.size === 3) || undefined,
      "runs of all devices after the move",
    );
    expect([...cellsSeen].sort()).toEqual(["a eu2", "b eu2", "c eu2"]);

    // A hook's old address leads to the new one.
    const posted = await door.ask(hookUrl, { method: "POST", body: "{}" });
    expect(posted.status).toBe(308);
    await expect(direct.orgs.getOrg({})).rejects.toMatchObject({ code: Code.FailedPrecondition });

    const arrived = clientsAt(door.url, withCell(token, "eu2"), ca);
    for (const watcherId of ["a", "b", "c"]) await arrived.watchers.pauseWatcher({ watcherId });
    const ended = async () => {
      const { runs } = await arrived.runs.listRuns({ pageSize: 500 });
      const left = runs.filter(({ status }) => status < RunStatus.COMPLETED);
      return left.length === 0 ? runs : undefined;
    };
    const runs = (await eventually(ended, "all runs ended"))!;
    const stored = await sql<{ id: string; output: string }>`
      select id, extracted_data ->> 'output' as output from "window" where org_id = ${orgId}`.execute(
      two.database.db,
    );
    expect(stored.rows.map(({ id }) => id).sort()).toEqual([...ledger.keys()].sort());
    for (const { id, output } of stored.rows) expect(output).toBe(`of ${id}`);
    expect([...ledger.values()].filter((times) => times !== 1)).toEqual([]);
    const completed = runs.filter(({ status }) => status === RunStatus.COMPLETED).map(({ id }) => id);
    expect(completed.sort()).toEqual([...ledger.keys()].sort());
  }, 180_000);
});

function spawnMove(orgId: string, ...more: string[]): ChildProcess {
  const { sourceUrl, targetUrl } = moving(orgId);
  const args = [inject("pinionMain"), "orgs", "move", orgId, "--to", "eu2", ...more];
  return spawn(process.execPath, args, {
    env: { ...process.env, DATABASE_URL: sourceUrl, PINION_TO_DATABASE_URL: targetUrl },
    stdio: ["ignore", "pipe", "inherit"],
  });
}

/** Runs the command, and kills it when it says the step. */
async function killedAt(step: string, orgId: string): Promise<void> {
  const child = spawnMove(orgId, "--json");
  const ended = new Promise((resolve) => child.once("exit", resolve));
  for await (const line of createInterface({ input: child.stdout! })) {
    if ((JSON.parse(line) as { step?: string }).step === step) child.kill("SIGKILL");
  }
  await ended;
  expect([step, child.signalCode]).toEqual([step, "SIGKILL"]);
}

async function commandOf(orgId: string, ...more: string[]): Promise<{ code: number | null }> {
  const child = spawnMove(orgId, ...more);
  child.stdout!.resume();
  return { code: await new Promise((resolve) => child.once("exit", (code) => resolve(code))) };
}
