/**
 * Runs on every device, lost by the database in a failover: what starts them again gives a run to
 * the devices that have not run, and to no other.
 */

import { sql } from "kysely";
import { beforeAll, expect, test, vi } from "vitest";
import { type Assignment, CompletionVerdict } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { SpreadMode } from "#gen/pinion/v1/watcher_pb.js";
import { materializeOnce } from "../../../../src/scheduler/slots/materializer.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";
import { followerRunId, slotRunId } from "../../../../src/values/ids.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../../../support/device.ts";
import { hourly, listRuns, putSchedule } from "../../../support/rows.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { noteDoorbell } from "../../../support/surroundings.ts";
import { takeOn } from "../../../support/work.ts";
import { forget, hooked, offer } from "./forgotten-work.ts";

const database = useDatabase({ per: "file" });
const env = {
  PINION_SECRET_KEYS: `k:${Buffer.alloc(32, 7).toString("base64")}`,
  // The hand-driven devices send no heartbeats by themselves, however long a step takes.
  PINION_HEARTBEAT_TTL_MS: "60000",
};
let replica: TestReplica;
const log = createLogger({ name: "test", level: "silent" });

beforeAll(async () => {
  replica = await openTestReplica(database.url, env);
  return () => replica.stop();
});

/** Devices with a label of their own, each with a stream. */
async function labelled(label: string) {
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
  const spec = { name: label, prompt: "do it", selector: `"${label}" in labels`, spread: SpreadMode.ALL };
  const placed = async () => {
    // A change of a device has the waiting runs placed.
    await clients.fleet.labelDevice({ deviceId: devices[0]!, add: ["looked-at"] });
    await clients.fleet.labelDevice({ deviceId: devices[0]!, remove: ["looked-at"] });
    // The streams are silent otherwise, for as long as the steps of a busy machine take.
    for (const stream of streams) await stream.beat();
  };
  const takeAll = () =>
    Promise.all(streams.map(async (stream) => ({ stream, assignment: await takeOn(stream) })));
  return { streams, spec, placed, takeAll };
}

/** The share that has the id of the run itself, and the other shares. */
function shares(given: readonly Share[], runId: string) {
  const parent = given.find(({ assignment }) => assignment.workId === runId)!;
  const forgetAll = () => forget(database.db, ...given.map(({ assignment }) => assignment.workId));
  return { parent, others: given.filter((one) => one !== parent), forgetAll };
}

type Share = { stream: DeviceStream; assignment: Assignment };

/** A slot on each of three devices. */
async function spread(label: string) {
  const { spec, placed, takeAll } = await labelled(label);
  const { schedule, slot } = hourly();
  const { watcher } = await replica.clients.watchers.createWatcher({ spec: { ...spec, schedule } });
  const name = { orgId: "local", watcherId: watcher!.id };
  const due = async () => {
    await putSchedule(database.db, name, slot(0));
    await materializeOnce(database.db, { doorbell: noteDoorbell(), log });
    await placed();
  };
  await due();
  const given = await takeAll();
  return { name, due, ...shares(given, slotRunId({ ...name, scheduledFor: slot(0) })) };
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

/**
 * Each of the others completes its share again, under a new attempt, and the parent has nothing to
 * do.
 */
async function completeOthers({ parent, others }: Pick<ReturnType<typeof shares>, "parent" | "others">) {
  for (const { stream, assignment } of others) {
    const again = await takeOn(stream);
    expect(again.attemptToken).not.toBe(assignment.attemptToken);
    expect((await stream.complete(again, "mine")).verdict).toBe(CompletionVerdict.STORED);
  }
  await parent.stream.beat();
  expect(parent.stream.waiting("assignment")).toEqual([]);
}

test("a delivery that is repeated, after its first device gave the result back, runs on the other devices alone", async () => {
  const { spec, placed, takeAll } = await labelled("spread-hook");
  const { watcher, post } = await hooked(replica, spec);
  const { run_id: runId } = await post("one");
  await placed();
  const given = shares(await takeAll(), runId);
  await given.parent.stream.complete(given.parent.assignment, "the answer");
  await given.forgetAll();
  expect(await offer(given.parent.stream, given.parent.assignment)).toBe(CompletionVerdict.STORED_LATE);
  expect((await post("one")).outcome).toBe("started");
  await placed();
  await completeOthers(given);
  const runs = await listRuns(database.db, { orgId: "local", watcherId: watcher.id });
  expect(runs.map(({ status }) => status)).toEqual(["completed", "completed", "completed"]);
});

test("a trigger of every device that is repeated, after all gave their results back, is skipped with the reason", async () => {
  const { spec, placed, takeAll } = await labelled("spread-trigger");
  const { clients } = replica;
  const { watcher } = await clients.watchers.createWatcher({ spec });
  const asked = { watcherId: watcher!.id, requestId: "of every device" };
  const { run } = await clients.watchers.triggerWatcher(asked);
  await placed();
  const given = shares(await takeAll(), run!.id);
  const all = [given.parent, ...given.others];
  for (const { stream, assignment } of all) await stream.complete(assignment, "the answer");
  await given.forgetAll();
  await sql`delete from request where id = ${asked.requestId}`.execute(database.db);
  for (const { stream, assignment } of all)
    expect(await offer(stream, assignment)).toBe(CompletionVerdict.STORED_LATE);
  const again = await clients.watchers.triggerWatcher(asked);
  await placed();
  await vi.waitFor(async () => {
    const { run: ended } = await clients.runs.getRun({ runId: again.run!.id });
    expect(ended).toMatchObject({
      status: RunStatus.SKIPPED,
      reason: expect.stringContaining("gave their results back"),
    });
  });
  for (const { stream } of all) {
    await stream.beat();
    expect(stream.waiting("assignment")).toEqual([]);
  }
});

test("a follower on every device runs on the others, after the end that started it came back last", async () => {
  const { spec, placed, takeAll } = await labelled("spread-after");
  const { clients, url } = replica;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device, { maxConcurrency: 4 });
  const { watcher: first } = await clients.watchers.createWatcher({
    spec: { name: "Spread first", prompt: "do it", deviceId: device.deviceId },
  });
  const { watcher: next } = await clients.watchers.createWatcher({ spec: { ...spec, after: [first!.slug] } });
  await clients.watchers.triggerWatcher({ watcherId: first!.id });
  const cause = await takeOn(stream);
  await stream.complete(cause, "the answer");
  await placed();
  const ids = { afterRunId: cause.workId, watcherId: next!.id };
  const given = shares(await takeAll(), followerRunId(ids));
  await given.parent.stream.complete(given.parent.assignment, "the answer");
  await given.forgetAll();
  await forget(database.db, cause.workId);
  expect(await offer(given.parent.stream, given.parent.assignment)).toBe(CompletionVerdict.STORED_LATE);
  expect(await offer(stream, cause)).toBe(CompletionVerdict.STORED_LATE);
  await placed();
  await completeOthers(given);
  expect(await listRuns(database.db, { orgId: "local", watcherId: next!.id })).toHaveLength(3);
});
