/**
 * Runs that something else than their slot has started, lost by the database in a failover: what
 * starts them again finds the result that came back.
 */

import { timestampDate } from "@bufbuild/protobuf/wkt";
import { sql } from "kysely";
import { beforeAll, expect, test } from "vitest";
import { CompletionVerdict, RejectReason } from "#gen/pinion/v1/device_pb.js";
import { RunSource, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { materializeBacklogOnce } from "../../../../src/scheduler/slots/materializer.ts";
import { transaction } from "../../../../src/store/pg/database.ts";
import { type ForgottenAttempt, restore } from "../../../../src/store/work/runs/restorations.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { untilBlocked } from "../../../support/locks.ts";
import { listRuns, listWindows } from "../../../support/rows.ts";
import { openTestReplica, type TestReplica } from "../../../support/server.ts";
import { noteDoorbell } from "../../../support/surroundings.ts";
import { getRun, takeOn, untilStatus } from "../../../support/work.ts";
import { forget, hooked, offer } from "./forgotten-work.ts";

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
  await forget(database.db, cause.workId, effect.workId);
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
  const { clients, device, stream } = await begin();
  const { hook, post } = await hooked(replica, { deviceId: device.deviceId });
  const { run_id: runId } = await post("one");
  const assignment = await takeOn(stream);
  expect(assignment.workId).toBe(runId);
  await stream.complete(assignment, "the answer");
  await forget(database.db, runId);
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

test("a delivery that its sender repeats before the result comes back has one run, which gets the result", async () => {
  const { clients, device, stream } = await begin();
  const { post, watcher } = await hooked(replica, { deviceId: device.deviceId });
  const { run_id: runId } = await post("one");
  const assignment = await takeOn(stream);
  await stream.complete(assignment, "the answer");
  await forget(database.db, runId);
  // The device is away, as far as the second run is concerned.
  stream.cancel();
  await stream.ended;
  const { run_id: again } = await post("one");
  expect(again).not.toBe(runId);
  const back = await connect(replica.url, device, { maxConcurrency: 4 });
  const pushed = await back.next("assignment");
  expect(pushed.workId).toBe(again);
  back.send({
    case: "reject",
    value: { workId: again, attemptToken: pushed.attemptToken, reason: RejectReason.BUSY },
  });
  // The refusal is stored: until then the attempt owns the run.
  await untilStatus(clients, { workId: again }, RunStatus.PENDING);
  expect(await offer(back, assignment)).toBe(CompletionVerdict.STORED_LATE);
  const runs = await listRuns(database.db, { orgId: "local", watcherId: watcher.id });
  expect(runs).toMatchObject([{ id: again, status: "completed" }]);
  expect(await getRun(clients, { workId: again })).toMatchObject({ status: RunStatus.COMPLETED });
});

test("a trigger that is repeated after a failover finds the run that came back", async () => {
  const { clients, device, stream } = await begin();
  count += 1;
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: `Triggered ${count}`, prompt: "do it", deviceId: device.deviceId },
  });
  const asked = { watcherId: watcher!.id, requestId: "of a person" };
  const first = await clients.watchers.triggerWatcher(asked);
  const assignment = await takeOn(stream);
  await stream.complete(assignment, "the answer");
  await forget(database.db, assignment.workId);
  await sql`delete from request where id = ${asked.requestId}`.execute(database.db);
  expect(await offer(stream, assignment)).toBe(CompletionVerdict.STORED_LATE);
  // The first repeat finds the run by its name, the second by the request.
  for (const _ of [1, 2]) {
    const repeated = await clients.watchers.triggerWatcher(asked);
    expect(repeated).toMatchObject({
      alreadyQueued: false,
      run: { id: first.run!.id, status: RunStatus.COMPLETED },
    });
  }
  const { run } = await clients.watchers.triggerWatcher({ ...asked, requestId: "of another" });
  expect(run!.id).not.toBe(first.run!.id);
});

test("a follower that waits, because its run is coming back at that moment, does not run again", async () => {
  const { device, stream, cause, effect, follower } = await chain();
  const { watcher, event, attempt, attemptToken, workId: runId } = effect;
  const forgotten: ForgottenAttempt = {
    ...{ orgId: "local", deviceId: device.deviceId, runId, attemptToken, attempt, watcherId: watcher!.id },
    ...{ source: "after", scheduledFor: null },
    windowStart: timestampDate(event!.windowStart!),
    windowEnd: timestampDate(event!.windowEnd!),
  };
  const offered = await transaction(database.db, async (tx) => {
    expect(await restore(tx, forgotten)).toBe(runId);
    // The watcher is locked and its run not visible yet: the start will wait in the queue.
    const offering = offer(stream, cause);
    await untilBlocked(database.db);
    return { offering };
  });
  expect(await offered.offering).toBe(CompletionVerdict.STORED_LATE);
  await materializeBacklogOnce(database.db, { doorbell: noteDoorbell(), log });
  // The replica's own pass may have the row, which the pass above then leaves to it.
  await expect.poll(() => database.db.selectFrom("backlog").selectAll().execute()).toEqual([]);
  await stream.beat();
  expect(stream.waiting("assignment")).toEqual([]);
  expect(await listRuns(database.db, follower)).toMatchObject([{ id: runId }]);
});
