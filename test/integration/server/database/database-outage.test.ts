/** PostgreSQL goes away for a while, and comes back. */
import { status as grpcStatus } from "@grpc/grpc-js";
import { sql } from "kysely";
import { expect, onTestFinished, test, vi } from "vitest";
import { CompletionVerdict, HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, dial, enrolDevice } from "../../../support/device.ts";
import { type FaultProxy, startFaultProxy } from "../../../support/fault-proxy.ts";
import { isLong } from "../../../support/long.ts";
import { startTestReplica } from "../../../support/server.ts";
import { getRun, heldOf, startWork, takeOn, untilStatus } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });

/** A link to the database that can be cut. */
async function startCuttable() {
  const url = new URL(database.url);
  const proxy = await startFaultProxy({ host: url.hostname, port: Number(url.port || 5432) });
  onTestFinished(() => proxy.close());
  url.hostname = "127.0.0.1";
  url.port = String(proxy.port);
  return { proxy, url: url.href };
}

/** From now on every connection breaks and none is made. */
function cut(proxy: FaultProxy): void {
  proxy.set({ onConnect: "reset" });
  proxy.reset();
}

/** Beats, and expects each beat to be acknowledged within a second, until stopped. */
function beatOn(stream: DeviceStream, attempts: Parameters<DeviceStream["beat"]>[0]) {
  let isOver = false;
  const beating = (async () => {
    for (let sequence = 1n; !isOver; sequence++) {
      stream.send({ case: "heartbeat", value: { sequence, attempts: attempts!.map(nameOf) } });
      await stream.next("heartbeatAck", 1_000);
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  })();
  beating.catch(() => {});
  return async () => {
    isOver = true;
    await beating;
  };
}

/** Resolves once so many replicas listen for notifications. */
async function untilListening(count: number): Promise<void> {
  await vi.waitFor(
    async () => {
      const { rows } = await sql<{ listening: number }>`
        select count(*)::int as listening from pg_stat_activity
        where datname = current_database() and application_name = 'pinion listener' and state = 'idle'
      `.execute(database.db);
      expect(rows[0]!.listening).toBe(count);
    },
    { timeout: 12_000, interval: 50 },
  );
}

const readyz = async (replica: { url: string }) => (await fetch(`${replica.url}/readyz`)).status;

test("while the database is away, calls say so and when to try again; /readyz is red, and green afterwards", async () => {
  const { proxy, url } = await startCuttable();
  const replica = await startTestReplica(url);
  const { clients } = replica;
  const device = await enrolDevice(clients);
  expect(await readyz(replica)).toBe(200);
  cut(proxy);
  const calls = [
    () => clients.runs.listRuns({}),
    () => clients.watchers.triggerWatcher({ watcherId: "daily-checkin" }),
    () => clients.fleet.listDevices({}),
  ];
  for (const call of calls) {
    await expect(call()).rejects.toMatchObject({
      reason: "unavailable",
      rawMessage: "the database is away",
      retryAfterMs: expect.any(Number),
    });
  }
  expect(await readyz(replica)).toBe(503);
  expect((await fetch(`${replica.url}/healthz`)).status).toBe(200);
  // A newly connecting device is asked to come again.
  const early = dial(replica.url, device.token);
  early.hello(device);
  expect((await early.ended).code).toBe(grpcStatus.UNAVAILABLE);
  proxy.heal();
  await vi.waitFor(async () => expect(await readyz(replica)).toBe(200), { timeout: 5_000 });
  await clients.runs.listRuns({});
  await (await connect(replica.url, device)).beat();
});

test("the device's stream outlives an outage: beats are answered, and a completion is stored once and acknowledged after it", async () => {
  const { proxy, url } = await startCuttable();
  const cutOff = await startTestReplica(url);
  const other = await startTestReplica(database.url);
  const device = await enrolDevice(other.clients);
  const stream = await connect(cutOff.url, device);
  await startWork(other.clients, device);
  const assignment = await takeOn(stream);
  await untilStatus(other.clients, assignment, RunStatus.RUNNING);
  await untilListening(2);
  cut(proxy);
  await untilListening(1);
  stream.send({ case: "complete", value: { ...nameOf(assignment), outcome: 1, output: "made it" } });
  const stopBeating = beatOn(stream, []);
  // A run whose notification does not reach the cut-off replica.
  const unheard = await startWork(other.clients, device);
  await expect(cutOff.clients.runs.listRuns({})).rejects.toMatchObject({ reason: "unavailable" });
  expect((await getRun(other.clients, assignment)).status).toBe(RunStatus.RUNNING);
  expect(stream.waiting("completionAck")).toEqual([]);
  proxy.heal();
  const ack = await stream.next("completionAck", 5_000);
  expect(ack.verdict).toBe(CompletionVerdict.STORED);
  const next = await stream.next("assignment", 5_000);
  expect(next.workId).toBe(unheard.id);
  await stopBeating();
  expect((await stream.complete(assignment)).verdict).toBe(CompletionVerdict.ALREADY_STORED);
  const { windows } = await other.clients.runs.listWindows({ watcherId: assignment.watcher!.id });
  expect(windows.map((window) => window.id)).toEqual([ack.windowId]);
  // Bells ring between the replicas again, in both directions.
  await untilListening(2);
  await stream.complete(next);
  const heard = await startWork(other.clients, device);
  expect((await stream.next("assignment", 1_000)).workId).toBe(heard.id);
  await other.clients.runs.cancelRun({ runId: heard.id });
  await stream.next("cancel", 1_000);
  const elsewhere = await enrolDevice(other.clients);
  const theirs = await connect(other.url, elsewhere);
  const sent = await startWork(cutOff.clients, elsewhere);
  expect((await theirs.next("assignment", 1_000)).workId).toBe(sent.id);
});

test.skipIf(!isLong)(
  "an outage longer than the TTL reaps nothing, also not the work of a device that was just away",
  async () => {
    const { proxy, url } = await startCuttable();
    const ttlMs = 4_000;
    const timers = {
      PINION_HEARTBEAT_INTERVAL_MS: "500",
      PINION_HEARTBEAT_TTL_MS: String(ttlMs),
      PINION_REAP_INTERVAL_MS: "100",
    };
    const [first, second] = [await startTestReplica(url, timers), await startTestReplica(url, timers)];
    const { clients } = first;
    const [steady, away] = [await enrolDevice(clients), await enrolDevice(clients)];
    const steadys = await connect(first.url, steady);
    const aways = await connect(second.url, away);
    await startWork(clients, steady);
    await startWork(clients, away);
    const [kept, interrupted] = [await takeOn(steadys), await takeOn(aways)];
    const stopBeating = beatOn(steadys, [kept]);
    await untilStatus(clients, kept, RunStatus.RUNNING);
    await untilStatus(clients, interrupted, RunStatus.RUNNING);
    aways.cancel();
    cut(proxy);
    await new Promise((resolve) => setTimeout(resolve, 1.5 * ttlMs));
    proxy.heal();
    await vi.waitFor(async () => expect(await readyz(first)).toBe(200), { timeout: 5_000 });
    const back = await connect(second.url, away, { held: [heldOf(interrupted)] });
    expect(back.welcome.verdicts[0]!.verdict).toBe(HeldVerdict.CONTINUE);
    const { rows } = await sql<{ kind: string }>`
    select kind from event where run_id in (${kept.workId}, ${interrupted.workId}) and data->>'reason' is not null
  `.execute(database.db);
    expect(rows).toEqual([]);
    expect((await back.complete(interrupted)).verdict).toBe(CompletionVerdict.STORED);
    await stopBeating();
    const done = await steadys.complete(kept);
    expect(done.verdict).toBe(CompletionVerdict.STORED);
    expect(await getRun(clients, kept)).toMatchObject({ attempt: 1, pastAttempts: [] });
    // Afterwards lost attempts are reaped as usual.
    await startWork(clients, away);
    const lost = await takeOn(back);
    await untilStatus(clients, lost, RunStatus.RUNNING);
    back.cancel();
    const reaped = await untilStatus(clients, lost, RunStatus.TIMEOUT);
    expect(reaped.reason).toContain("device lost");
  },
);

test("a device that dies while the database is away is reaped within its TTL afterwards", async () => {
  const { proxy, url } = await startCuttable();
  const replica = await startTestReplica(url, {
    PINION_HEARTBEAT_INTERVAL_MS: "1000",
    PINION_HEARTBEAT_TTL_MS: "3000",
    PINION_REAP_INTERVAL_MS: "100",
  });
  const { clients } = replica;
  const device = await enrolDevice(clients);
  const stream = await connect(replica.url, device);
  await startWork(clients, device);
  const assignment = await stream.next("assignment");
  // The device sends no heartbeat, so without the broken stream only the limit of two hours would
  // end the attempt.
  stream.accept(assignment);
  await untilStatus(clients, assignment, RunStatus.RUNNING);
  cut(proxy);
  await vi.waitFor(async () => expect(await readyz(replica)).toBe(503), { timeout: 5_000 });
  stream.cancel();
  proxy.heal();
  const reaped = await untilStatus(clients, assignment, RunStatus.TIMEOUT, 15_000);
  expect(reaped.reason).toContain("device lost");
});

function nameOf({ workId, attemptToken }: { workId: string; attemptToken: string }) {
  return { workId, attemptToken };
}
