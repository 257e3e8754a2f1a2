/**
 * Two cells, each with its own database and replica, behind one address: every token, code and
 * address leads to its cell, and one cell that is down does not slow the other.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Code } from "@connectrpc/connect";
import { connectDevice, createClients, enroll, silentLogger } from "@pinion/client";
import { sql } from "kysely";
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from "vitest";
import { Os } from "#gen/pinion/v1/device_pb.js";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { withCell } from "../../../../src/values/ids.ts";
import { createTestDatabase, type TestDatabase } from "../../../support/database.ts";
import { type DoorKind, type FrontDoor, missingDoor, startFrontDoor } from "../../../support/front-door.ts";
import { freePort } from "../../../support/programs.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { startWork, untilStatus } from "../../../support/work.ts";

type Cell = {
  name: "eu1" | "eu2";
  database: TestDatabase;
  replica: TestReplica;
  probePort: number;
  token: string;
};

const env = {
  PINION_TRUSTED_PROXIES: "1",
  PINION_SECRET_KEYS: `k:${Buffer.alloc(32, 7).toString("base64")}`,
};

async function openCell(name: Cell["name"]): Promise<Cell> {
  const database = await createTestDatabase();
  return { name, database, ...(await openReplica(name, database)) };
}

async function openReplica(name: Cell["name"], database: TestDatabase) {
  const probePort = await freePort();
  const replica = await openTestReplica(database.url, {
    ...{ ...env, PINION_CELL: name, PINION_PROBE_PORT: String(probePort) },
  });
  // Both have the org "local": the name tells the cell that answered.
  await sql`update org set name = ${name}`.execute(database.db);
  return { replica, probePort, token: withCell(replica.token, name) };
}

let cells: [Cell, Cell];
beforeAll(async () => {
  cells = [await openCell("eu1"), await openCell("eu2")];
});
afterAll(async () => {
  for (const { replica, database } of cells) {
    await replica.stop();
    await database.drop();
  }
});

const behind = ({ replica, probePort }: Pick<Cell, "replica" | "probePort">) => ({
  url: replica.url,
  probePort,
});
const json = { "content-type": "application/json", "connect-protocol-version": "1" };

function through(door: FrontDoor, token?: string) {
  const clients = createClients({
    url: door.url,
    tls: { ca: Buffer.from(door.ca) },
    ...(token ? { token } : {}),
  });
  onTestFinished(() => clients.close());
  return clients;
}

/**
 * A daemon of the client library, enrolled and connected through the door, that completes every
 * run.
 */
async function daemonOf(door: FrontDoor, cell: Cell) {
  const { joinCode } = await through(door, cell.token).fleet.createJoinCode({});
  expect(joinCode).toMatch(new RegExp(`^${cell.name.toUpperCase()}(-[A-Z0-9]{4}){4}$`));
  const stateDir = mkdtempSync(join(tmpdir(), "pinion-cell-"));
  const tls = { ca: Buffer.from(door.ca) };
  const identity = await enroll({ url: door.url, joinCode, label: `box-${cell.name}`, stateDir, tls });
  expect(identity.token).toMatch(new RegExp(`^pin_dev_${cell.name}_`));
  const device = connectDevice({
    ...{ url: door.url, tls, stateDir, logger: silentLogger },
    ...{ token: identity.token, installId: identity.installId, agentKinds: ["test"], os: Os.LINUX },
    onAssignment: async () => ({ outcome: "completed", output: cell.name }),
  });
  onTestFinished(async () => {
    await device.close({ graceMs: 0, flushMs: 0 }).catch(() => {});
    rmSync(stateDir, { recursive: true, force: true });
  });
  return { ...identity, label: `box-${cell.name}` };
}

/** 100 calls, two at a time; throws if one of them fails. */
async function paceOf(call: () => Promise<unknown>) {
  const took: number[] = [];
  const caller = async () => {
    for (let calls = 0; calls < 50; calls++) {
      const startedAt = performance.now();
      await call();
      took.push(performance.now() - startedAt);
    }
  };
  await Promise.all([caller(), caller()]);
  took.sort((a, b) => a - b);
  return { p50: took[50]!, p99: took[98]!, slowestMs: took.at(-1)! };
}

/** Calls that fail, one after another; returns their number. */
async function knock(call: () => Promise<unknown>, signal: AbortSignal): Promise<number> {
  for (let calls = 0; ; calls++) {
    if (signal.aborted) return calls;
    await expect(call()).rejects.toMatchObject({ code: Code.Unavailable });
  }
}

for (const kind of ["haproxy", "nginx", "envoy"] satisfies DoorKind[]) {
  describe.skipIf(missingDoor(kind))(`behind ${kind}`, () => {
    async function open(): Promise<FrontDoor> {
      const [one, two] = cells;
      const door = await startFrontDoor(kind, { eu1: behind(one), eu2: behind(two) });
      onTestFinished(() => door.close());
      return door;
    }

    test("a device's enrolment, stream and completion, and unary calls, reach the cell that the token names", async () => {
      const door = await open();
      for (const cell of cells) {
        const device = await daemonOf(door, cell);
        const clients = through(door, cell.token);
        const { id } = await startWork(clients, device);
        const run = await untilStatus(clients, { workId: id }, RunStatus.COMPLETED);
        expect(run.deviceId).toBe(device.deviceId);
        expect((await clients.orgs.getOrg({})).org!.name).toBe(cell.name);
        // The cell's own replica holds the stream.
        const { devices } = await cell.replica.clients.fleet.listDevices({});
        expect(devices.map(({ id: deviceId }) => deviceId)).toContain(device.deviceId);
      }
    });

    test("JSON over HTTP/1.1, the page's sign-in and cookie, and a hook's post reach their cell", async () => {
      const door = await open();
      expect(await door.ask("/")).toMatchObject({
        status: 200,
        body: expect.stringContaining("<title>Pinion"),
      });
      expect((await door.ask("/metrics")).status).toBe(404);
      for (const cell of cells) {
        const authorization = `Bearer ${cell.token}`;
        const asked = await door.ask("/pinion.v1.OrgService/GetOrg", {
          method: "POST",
          headers: { ...json, authorization },
          body: "{}",
        });
        expect(JSON.parse(asked.body)).toMatchObject({ org: { name: cell.name } });

        // As the page does for a token that a person pastes.
        const signedIn = await door.ask("/pinion.v1.SignInService/SignIn", {
          method: "POST",
          headers: { ...json, "pinion-cell": cell.name },
          body: JSON.stringify({ token: cell.token }),
        });
        const cookie = signedIn.setCookie.split(";")[0]!;
        expect(cookie).toContain(`=pin_pat_${cell.name}_`);
        const caller = await door.ask("/pinion.v1.SignInService/GetCaller", {
          method: "POST",
          headers: { ...json, cookie: `other=1; ${cookie}; last=pin_pat_x`, "sec-fetch-site": "same-origin" },
          body: "{}",
        });
        expect(JSON.parse(caller.body)).toMatchObject({ orgName: cell.name });

        const link = await through(door, cell.token).signIns.createSignInLink({});
        expect(link.path).toContain(`code=${cell.name}_`);

        const { watcher } = await cell.replica.clients.watchers.createWatcher({
          slug: `hooked-${kind}`,
          spec: { name: "Hooked", prompt: "look" },
        });
        const { url, secret } = await through(door, cell.token).hooks.createHook({
          spec: { watcherId: watcher!.slug, kind: HookKind.BEARER },
        });
        expect(url).toMatch(new RegExp(`^/hooks/${cell.name}_`));
        const hooked = await door.ask(url, {
          method: "POST",
          headers: { "content-type": "application/json", authorization: `Bearer ${secret}` },
          body: "{}",
        });
        expect([hooked.status, hooked.body]).toEqual([202, expect.stringContaining('"delivery"')]);
      }
    });

    test("while one cell is down, the other's calls and streams go on at their pace", async () => {
      const [one, two] = cells;
      // Another replica of the first cell, which the test may stop.
      const doomed = await openReplica(one.name, one.database);
      const door = await startFrontDoor(kind, { eu1: behind(doomed), eu2: behind(two) });
      onTestFinished(() => door.close());
      const [gone, other] = [through(door, one.token), through(door, two.token)];
      const device = await daemonOf(door, two);
      await gone.orgs.getOrg({});
      const before = await paceOf(() => other.orgs.getOrg({}));

      await doomed.replica.stop();
      await expect(gone.orgs.getOrg({})).rejects.toMatchObject({ code: Code.Unavailable });
      // Callers of the cell that is down, in all the time of the measurement.
      const stop = new AbortController();
      const knocking = knock(() => gone.orgs.getOrg({}), stop.signal);
      const after = await paceOf(() => other.orgs.getOrg({}));
      const { id } = await startWork(other, device);
      await untilStatus(other, { workId: id }, RunStatus.COMPLETED);
      stop.abort();
      expect(await knocking).toBeGreaterThan(0);
      if (process.env.PINION_TEST_PACE) console.error(kind, { before, after });
      // A call that waited for the other cell would wait for the door's timeout of a connection.
      for (const { slowestMs } of [before, after]) expect(slowestMs).toBeLessThan(5_000);
    });

    test("a token from before there were cells, and no token, lead to the first cell", async () => {
      const door = await open();
      const [one] = cells;
      const { org } = await through(door, withCell(one.token, "")).orgs.getOrg({});
      expect(org!.name).toBe("eu1");
      expect((await through(door).signIns.getSignInOptions({})).signedIn).toBe(false);
    });
  });
}
