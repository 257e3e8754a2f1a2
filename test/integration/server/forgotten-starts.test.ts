/**
 * Runs that something else than their slot has started, and runs for every device, lost by the
 * database in a failover: what starts them again finds the result that came back (DESIGN 16).
 */

import { sql } from "kysely";
import { beforeAll, expect, test, vi } from "vitest";
import { type Assignment, CompletionVerdict, Outcome } from "#gen/pinion/v1/device_pb.js";
import { HookKind } from "#gen/pinion/v1/hook_pb.js";
import { RunSource, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { SpreadMode } from "#gen/pinion/v1/watcher_pb.js";
import { slotRunId } from "../../../src/ids.ts";
import { createLogger } from "../../../src/log.ts";
import { materializeOnce } from "../../../src/scheduler/materializer.ts";
import { useDatabase } from "../../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../../support/device.ts";
import { hourly, listRuns, listWindows, putSchedule } from "../../support/rows.ts";
import { openTestReplica, type TestReplica } from "../../support/server.ts";
import { noteDoorbell } from "../../support/surroundings.ts";
import { getRun, takeOn } from "./work.ts";

const database = useDatabase({ per: "file" });
const env = { PINION_SECRET_KEYS: `k:${Buffer.alloc(32, 7).toString("base64")}` };
let replica: TestReplica;
let count = 0;
const log = createLogger({ name: "test", level: "silent" });

beforeAll(async () => {
  replica = await openTestReplica(database.url, env);
  return () => replica.stop();
});

async function begin() {
  const { clients, url } = replica;
  const device = await enrolDevice(clients);
  return { clients, url, device, stream: await connect(url, device, { maxConcurrency: 4 }) };
}

/** The state of a standby that was promoted before any row of the runs was replicated. */
async function forget(...runIds: string[]): Promise<void> {
  for (const runId of runIds) {
    for (const table of ["run", "run_finished"])
      await sql`delete from ${sql.table(table)} where id = ${runId}`.execute(database.db);
    await sql`delete from run_start where run_id = ${runId}`.execute(database.db);
    await sql`delete from hook_delivery where run_id = ${runId}`.execute(database.db);
  }
}

async function offer(stream: DeviceStream, assignment: Assignment): Promise<CompletionVerdict> {
  const { workId, attemptToken, attempt, watcher, event } = assignment;
  const { source, scheduledFor, windowStart, windowEnd } = event!;
  const reoffer = {
    ...{ watcherId: watcher!.id, attempt, source, windowStart: windowStart!, windowEnd: windowEnd! },
    ...(scheduledFor ? { scheduledFor } : {}),
  };
  const value = { workId, attemptToken, outcome: Outcome.COMPLETED, output: "the answer", reoffer };
  stream.send({ case: "complete", value });
  return (await stream.next("completionAck")).verdict;
}

/** A run and the run of its follower, both completed and then forgotten. */
async function chain() {
  const begun = await begin();
  const { clients, device, stream } = begun;
  const spec = { prompt: "do it", deviceId: device.deviceId };
  count += 1;
  const { watcher: first } = await clients.watchers.createWatcher({
    spec: { ...spec, name: `First ${count}` },
  });
  const { watcher: next } = await clients.watchers.createWatcher({
    spec: { ...spec, name: `Next ${count}`, after: [first!.slug] },
  });
  await clients.watchers.triggerWatcher({ watcherId: first!.id });
  const cause = await takeOn(stream);
  await stream.complete(cause, "the answer");
  const effect = await takeOn(stream);
  await stream.complete(effect, "the answer");
  await forget(cause.workId, effect.workId);
  return { ...begun, cause, effect, follower: { orgId: "local", watcherId: next!.id } };
}

test("a follower whose result comes back first is not started again by the end that comes back later", async () => {
  const { clients, stream, cause, effect, follower } = await chain();
  expect(await offer(stream, effect)).toBe(CompletionVerdict.STORED_LATE);
  expect(await offer(stream, cause)).toBe(CompletionVerdict.STORED_LATE);
  await stream.beat();
  expect(stream.waiting("assignment")).toEqual([]);
  expect(await listRuns(database.db, follower)).toMatchObject([{ id: effect.workId, status: "completed" }]);
  const run = await getRun(clients, effect);
  expect(run).toMatchObject({ status: RunStatus.COMPLETED, source: RunSource.AFTER });
  expect(run.origin).toMatchObject({ afterRunId: cause.workId, depth: 1 });
});

test("a follower that is started again, before its result comes back, is the same run", async () => {
  const { stream, cause, effect, follower } = await chain();
  expect(await offer(stream, cause)).toBe(CompletionVerdict.STORED_LATE);
  const again = await stream.next("assignment");
  expect(again.workId).toBe(effect.workId);
  // The device has the result, and starts no program.
  expect((await stream.complete(again, "the answer")).verdict).toBe(CompletionVerdict.STORED);
  await offer(stream, effect);
  expect(await listRuns(database.db, follower)).toMatchObject([{ id: effect.workId, status: "completed" }]);
  expect(await listWindows(database.db, { runId: effect.workId })).toHaveLength(1);
});

test("a delivery that its sender repeats after a failover finds the run that came back", async () => {
  const { clients, url, device, stream } = await begin();
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: "Hooked", prompt: "look", deviceId: device.deviceId },
  });
  const {
    hook,
    secret,
    url: path,
  } = await clients.hooks.createHook({
    spec: { watcherId: watcher!.slug, kind: HookKind.BEARER },
  });
  const post = async (key: string) => {
    const headers = { authorization: `Bearer ${secret}`, "idempotency-key": key };
    const response = await fetch(`${url}${path}`, { method: "POST", body: "{}", headers });
    return (await response.json()) as { outcome: string; run_id: string };
  };
  const { run_id: runId } = await post("one");
  const assignment = await takeOn(stream);
  expect(assignment.workId).toBe(runId);
  await stream.complete(assignment, "the answer");
  await forget(runId);
  expect(await offer(stream, assignment)).toBe(CompletionVerdict.STORED_LATE);
  expect(await post("one")).toMatchObject({ outcome: "started", run_id: runId });
  // And is known from then on.
  expect(await post("one")).toMatchObject({ outcome: "started", run_id: runId });
  await stream.beat();
  expect(stream.waiting("assignment")).toEqual([]);
  expect(await getRun(clients, { workId: runId })).toMatchObject({ source: RunSource.HOOK });
  const { deliveries } = await clients.hooks.listHookDeliveries({ hookId: hook!.id });
  expect(deliveries).toMatchObject([{ runId, duplicates: 1 }]);
  const { run_id: other } = await post("two");
  expect(other).not.toBe(runId);
  expect((await stream.next("assignment")).workId).toBe(other);
});

/** A slot on each of three devices, of which the first alone had completed; then all is forgotten. */
async function spread(label: string) {
  const { clients, url } = replica;
  const streams: DeviceStream[] = [];
  const devices: string[] = [];
  for (let index = 0; index < 3; index++) {
    const device = await enrolDevice(clients);
    await clients.fleet.labelDevice({ deviceId: device.deviceId, add: [label] });
    // The forgotten attempt takes a slot, until two heartbeats have not listed it.
    streams.push(await connect(url, device, { maxConcurrency: 4 }));
    devices.push(device.deviceId);
  }
  const { schedule, slot } = hourly();
  const { watcher } = await clients.watchers.createWatcher({
    spec: {
      name: label,
      prompt: "do it",
      selector: `"${label}" in labels`,
      spread: SpreadMode.ALL,
      schedule,
    },
  });
  const name = { orgId: "local", watcherId: watcher!.id };
  const due = async () => {
    await putSchedule(database.db, name, slot(0));
    await materializeOnce(database.db, { doorbell: noteDoorbell(), log });
    // A change of a device has the waiting runs placed.
    await clients.fleet.labelDevice({ deviceId: devices[0]!, add: ["looked-at"] });
    await clients.fleet.labelDevice({ deviceId: devices[0]!, remove: ["looked-at"] });
    // The streams are silent otherwise, for as long as the steps of a busy machine take.
    for (const stream of streams) await stream.beat();
  };
  await due();
  const given = await Promise.all(
    streams.map(async (stream) => ({ stream, assignment: await takeOn(stream) })),
  );
  const slotId = slotRunId({ ...name, scheduledFor: slot(0) });
  const parent = given.find(({ assignment }) => assignment.workId === slotId)!;
  const others = given.filter((one) => one !== parent);
  const forgetAll = () => forget(...given.map(({ assignment }) => assignment.workId));
  return { name, due, parent, others, forgetAll };
}

test("a spread slot whose first device gives its result back still runs on the devices that had not completed", async () => {
  const { name, due, parent, others, forgetAll } = await spread("spread-lost");
  await parent.stream.complete(parent.assignment, "the answer");
  await forgetAll();
  expect(await offer(parent.stream, parent.assignment)).toBe(CompletionVerdict.STORED_LATE);
  await due();
  for (const { stream, assignment } of others) {
    const again = await takeOn(stream);
    expect(again.workId).not.toBe("");
    expect((await stream.complete(again, "mine")).verdict).toBe(CompletionVerdict.STORED);
    expect(again.attemptToken).not.toBe(assignment.attemptToken);
  }
  await parent.stream.beat();
  expect(parent.stream.waiting("assignment")).toEqual([]);
  const runs = await listRuns(database.db, name);
  expect(runs.map(({ status }) => status)).toEqual(["completed", "completed", "completed"]);
  expect(await offer(parent.stream, parent.assignment)).toBe(CompletionVerdict.ALREADY_STORED);
});

test("a spread slot that every device gives back is not run again, and has its row", async () => {
  const { name, due, parent, others, forgetAll } = await spread("spread-back");
  for (const { stream, assignment } of [parent, ...others]) await stream.complete(assignment, "the answer");
  await forgetAll();
  for (const { stream, assignment } of [parent, ...others])
    expect(await offer(stream, assignment)).toBe(CompletionVerdict.STORED_LATE);
  await due();
  // The placer looks at the slot's run after the commit, and finds nobody left to run it.
  await vi.waitFor(
    async () => {
      const runs = await listRuns(database.db, name);
      expect(runs.map(({ status }) => status)).toEqual(["completed", "completed", "completed"]);
    },
    { timeout: 10_000, interval: 50 },
  );
  await due();
  for (const { stream } of [parent, ...others]) {
    await stream.beat();
    expect(stream.waiting("assignment")).toEqual([]);
  }
  expect(await listRuns(database.db, name)).toHaveLength(3);
});
