/**
 * Results lost by the database in a failover to a lagging standby, and offered again by their
 * devices.
 */
import { setTimeout as delay } from "node:timers/promises";
import type { MessageInitShape } from "@bufbuild/protobuf";
import { timestampDate } from "@bufbuild/protobuf/wkt";
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { expect, onTestFinished, test, vi } from "vitest";
import { type Assignment, CompletionVerdict, Outcome } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { SpreadMode, type WatcherSpecSchema } from "#gen/pinion/v1/watcher_pb.js";
import { materializeBacklogOnce, materializeOnce } from "../../../../src/scheduler/slots/materializer.ts";
import * as incarnations from "../../../../src/store/pg/incarnation.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";
import { newId, slotRunId } from "../../../../src/values/ids.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice, type Identity } from "../../../support/device.ts";
import { hold, untilBlocked } from "../../../support/locks.ts";
import { hourly, listRuns, listWindows, putSchedule } from "../../../support/rows.ts";
import { noteDoorbell } from "../../../support/surroundings.ts";
import { getRun, startWork, takeOn, useReplicas } from "../../../support/work.ts";
import { connectWorker, fleetToken, workerIdentity } from "../../../support/worker.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");
const log = createLogger({ name: "test", level: "silent" });

async function begin() {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  return { clients, url, device, stream };
}

/** The state of a standby that was promoted before any of the run's rows were replicated. */
async function forget(runId: string): Promise<void> {
  for (const table of ["run", "run_finished"])
    await sql`delete from ${sql.table(table)} where id = ${runId}`.execute(database.db);
}

/**
 * The state of a standby that had the run before its claim: a device's run is due again in an hour,
 * a run without a device now.
 */
async function waitAgain(run: {
  runId: string;
  watcherId: string;
  deviceId: string | null;
  maxAttempts?: number;
}): Promise<void> {
  const { runId, watcherId, deviceId, maxAttempts = 1 } = run;
  const isPinned = deviceId !== null;
  await sql`insert into run (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
      notification, source, window_start, window_end, due_at, timeout_ms, max_attempts, is_pinned, not_before)
    values ('local', ${runId}, ${watcherId}, 1, 'pinion-default', 1, ${deviceId}, '', 'none', 'manual',
      now() - interval '1 day', now(), now(), 60000, ${maxAttempts}, ${isPinned},
      ${isPinned ? sql`now() + interval '1 hour'` : null})`.execute(database.db);
}

function offered({ workId, attemptToken, attempt, watcher, event }: Assignment, output = "the answer") {
  const { source, scheduledFor, windowStart, windowEnd } = event!;
  const reoffer = {
    ...{ watcherId: watcher!.id, attempt, source, windowStart: windowStart!, windowEnd: windowEnd! },
    ...(scheduledFor ? { scheduledFor } : {}),
  };
  return { workId, attemptToken, outcome: Outcome.COMPLETED, output, reoffer };
}

async function offer(stream: DeviceStream, assignment: Assignment, output?: string) {
  stream.send({ case: "complete", value: offered(assignment, output) });
  return stream.next("completionAck");
}

test("the welcome, every acknowledgement, and the unary call say which database it is", async () => {
  const { clients, url, device, stream } = await begin();
  const now = await incarnations.read(database.db);
  const { systemIdentifier, timeline } = now!;
  expect(stream.welcome.incarnation).toMatchObject({ systemIdentifier, timeline });
  await startWork(clients, device);
  const assignment = await takeOn(stream);
  expect((await stream.complete(assignment)).incarnation).toMatchObject({ systemIdentifier, timeline });
  const own = createClients({ url, token: device.token });
  onTestFinished(() => own.close());
  const answer = await own.device.completeRun({ completion: offered(assignment) });
  expect(answer.incarnation).toMatchObject({ systemIdentifier, timeline });
});

test("a run of which nothing is left is there again with its result, once; a second offer is ALREADY_STORED", async () => {
  const { clients, device, stream } = await begin();
  const { id: runId } = await startWork(clients, device);
  const assignment = await takeOn(stream);
  await stream.complete(assignment, "the answer");
  await forget(runId);
  expect((await offer(stream, assignment)).verdict).toBe(CompletionVerdict.STORED_LATE);
  expect(await getRun(clients, { workId: runId })).toMatchObject({ status: RunStatus.COMPLETED });
  expect(await listWindows(database.db, { runId })).toMatchObject([
    { extracted_data: { output: "the answer" } },
  ]);
  expect((await offer(stream, assignment)).verdict).toBe(CompletionVerdict.ALREADY_STORED);
  expect(await listWindows(database.db, { runId })).toHaveLength(1);
});

test("a run of which nothing is left comes back by the unary call, too", async () => {
  const { clients, url, device, stream } = await begin();
  const { id: runId } = await startWork(clients, device);
  const assignment = await takeOn(stream);
  await stream.complete(assignment, "the answer");
  await forget(runId);
  const own = createClients({ url, token: device.token });
  onTestFinished(() => own.close());
  const { verdict } = await own.device.completeRun({ completion: offered(assignment) });
  expect(verdict).toBe(CompletionVerdict.STORED_LATE);
  expect(await getRun(clients, { workId: runId })).toMatchObject({ status: RunStatus.COMPLETED });
});

test("a run that the database refuses to take back is not UNKNOWN: the device offers it again, and it is stored", async () => {
  const { clients, device, stream } = await begin();
  const { id: runId } = await startWork(clients, device);
  const assignment = await takeOn(stream);
  await stream.complete(assignment, "the answer");
  await forget(runId);
  // A sequence keeps its count where the transaction is rolled back.
  await sql`create sequence refusals`.execute(database.db);
  await sql`create function refuse_run() returns trigger language plpgsql security definer as $$
    begin perform nextval('refusals'); raise exception 'no' using errcode = '22000'; end $$`.execute(
    database.db,
  );
  for (const table of ["run", "run_finished"])
    await sql`create trigger refuse before insert on ${sql.table(table)}
      for each row when (new.id = ${sql.lit(runId)}) execute function refuse_run()`.execute(database.db);
  stream.send({ case: "complete", value: offered(assignment) });
  await vi.waitFor(async () => {
    const { rows } = await sql<{ isCalled: boolean }>`select is_called as "isCalled" from refusals`.execute(
      database.db,
    );
    expect(rows).toEqual([{ isCalled: true }]);
  });
  for (const table of ["run", "run_finished"])
    await sql`drop trigger refuse on ${sql.table(table)}`.execute(database.db);
  // The first answer on the stream is the one to the second offer.
  expect((await offer(stream, assignment)).verdict).toBe(CompletionVerdict.STORED_LATE);
});

test("a run that waits again, because its claim was forgotten, ends with the result and is claimed by nobody", async () => {
  const { clients, device, stream } = await begin();
  const busy = await startWork(clients, device);
  const first = await takeOn(stream);
  await stream.complete(first, "the answer");
  // The run's device is away, so the run is not claimed meanwhile.
  await forget(busy.id);
  await waitAgain({ runId: busy.id, watcherId: busy.watcherId, deviceId: device.deviceId });
  expect((await offer(stream, first)).verdict).toBe(CompletionVerdict.STORED_LATE);
  expect(await getRun(clients, { workId: busy.id })).toMatchObject({ status: RunStatus.COMPLETED });
});

test("a forgotten run that another worker has claimed when the first worker comes back runs twice: its result is the second's, and the first's is kept as late", async () => {
  const { clients, url } = replicas.here;
  const token = await fleetToken(clients);
  const identity = workerIdentity(token);
  const one = await connectWorker(url, identity);
  const { id, watcherId } = await startWork(clients, { ...identity, deviceId: "" });
  const first = await takeOn(one);
  await one.complete(first, "the first");
  one.cancel();
  await one.ended;
  await forget(id);
  await waitAgain({ runId: id, watcherId, deviceId: null });
  const other = await connectWorker(url, workerIdentity(token));
  const second = await takeOn(other);
  expect(second).toMatchObject({ workId: id });
  const back = await connectWorker(url, identity);
  expect((await offer(back, first, "the first")).verdict).toBe(CompletionVerdict.SUPERSEDED);
  await other.complete(second, "the second");
  const { windows } = await clients.runs.listWindows({ runId: id });
  expect(windows.map((window) => window.extractedData?.output)).toEqual(["the second"]);
  const { lateResults } = await clients.runs.getRun({ runId: id });
  expect(lateResults).toMatchObject([{ deviceId: identity.deviceId, output: "the first" }]);
  const { facts } = await clients.runs.explainRun({ runId: id });
  const told = facts.filter(({ kind }) => kind === "past_attempt" || kind === "late_result");
  expect(told.map(({ text }) => text)).toEqual([
    expect.stringMatching(/^attempt 1 ended: forgotten by the database in a failover/),
    expect.stringMatching(/^the program of attempt 1 on \S+ gave its result late \(completed\); it is kept/),
  ]);
});

test("a run that ends at the moment of the offer has its result, too", async () => {
  const { clients, device, stream } = await begin();
  const { id: runId, watcherId } = await startWork(clients, device);
  const first = await takeOn(stream);
  await stream.complete(first, "the answer");
  await forget(runId);
  await waitAgain({ runId, watcherId, deviceId: device.deviceId });
  const answered = await database.db.transaction().execute(async (tx) => {
    await sql`insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id,
        agent_kind, notification, source, window_start, window_end, due_at, created_at, timeout_ms, max_attempts, status,
        attempt, reason, past_attempts)
      select org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind, notification, source,
        window_start, window_end, due_at, created_at, timeout_ms, max_attempts, 'timeout', attempt, 'too late', past_attempts
      from run where id = ${runId}`.execute(tx);
    await sql`delete from run where id = ${runId}`.execute(tx);
    const answer = offer(stream, first);
    await delay(1_000);
    return { answer };
  });
  expect((await answered.answer).verdict).toBe(CompletionVerdict.STORED_LATE);
  expect(await getRun(clients, { workId: runId })).toMatchObject({ status: RunStatus.COMPLETED });
});

test("an attempt that comes back while the one before it ends has times after its end", async () => {
  const { device, stream } = await begin();
  const { id: runId, watcherId } = await startWork(replicas.here.clients, device);
  const assignment = await takeOn(stream);
  await stream.complete(assignment, "the answer");
  await forget(runId);
  await waitAgain({ runId, watcherId, deviceId: device.deviceId, maxAttempts: 3 });
  await using ending = await hold(database.db);
  await sql`select from run where id = ${runId} for update`.execute(ending.tx);
  const answered = offer(stream, { ...assignment, attempt: 2 });
  await untilBlocked(database.db);
  const end = sql`jsonb_build_object('attempt', 1, 'token', gen_random_uuid(), 'device_id', ${device.deviceId}::text,
    'claimed_at', now(), 'ended_at', clock_timestamp(), 'last_beat_at', null, 'reason', 'lost', 'is_reported', false)`;
  await sql`update run set past_attempts = jsonb_build_array(${end}) where id = ${runId}`.execute(ending.tx);
  await ending.commit();
  expect((await answered).verdict).toBe(CompletionVerdict.STORED_LATE);
  const { rows } = await sql<{ isAfter: boolean }>`
    select claimed_at >= (past_attempts->0->>'ended_at')::timestamptz as "isAfter" from run_finished
    where id = ${runId}`.execute(database.db);
  expect(rows).toEqual([{ isAfter: true }]);
});

/** The run of a slot, completed by its device. */
async function completeSlot(watcherName: string) {
  const { clients, url, device } = await begin();
  const { schedule, slot } = hourly();
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: watcherName, prompt: "do it", deviceId: device.deviceId, schedule },
  });
  const name = { orgId: "local", watcherId: watcher!.id };
  await putSchedule(database.db, name, slot(0));
  await materializeOnce(database.db, { doorbell: noteDoorbell(), log });
  // No notification came: the device asks when it connects.
  const stream = await connect(url, device);
  const assignment = await takeOn(stream);
  await stream.complete(assignment, "the answer");
  return { name, slot: slot(0), stream, assignment };
}

test("a slot that is recorded again has the same run, and does not get a second one after its result came back", async () => {
  const { name, slot, stream, assignment } = await completeSlot("Hourly");
  expect(assignment.workId).toBe(slotRunId({ ...name, scheduledFor: slot }));
  expect(timestampDate(assignment.event!.scheduledFor!)).toEqual(slot);
  await forget(assignment.workId);
  await putSchedule(database.db, name, slot);
  expect((await offer(stream, assignment)).verdict).toBe(CompletionVerdict.STORED_LATE);
  await materializeOnce(database.db, { doorbell: noteDoorbell(), log });
  expect(await listRuns(database.db, name)).toMatchObject([{ id: assignment.workId, status: "completed" }]);
});

test("a slot that was skipped meanwhile as missed, under another id, has the result of its device", async () => {
  const { name, slot, stream, assignment } = await completeSlot("Missed");
  const skippedId = newId();
  await sql`update run_finished set id = ${skippedId}, status = 'skipped', skip_reason = 'missed', window_id = null,
      output = null, window_start = window_end, attempt_token = null, is_reported = false
    where id = ${assignment.workId}`.execute(database.db);
  await sql`insert into slot (org_id, watcher_id, scheduled_for, run_id)
    values ('local', ${name.watcherId}, ${slot}, ${skippedId})`.execute(database.db);
  expect((await offer(stream, assignment)).verdict).toBe(CompletionVerdict.STORED_LATE);
  expect(await listRuns(database.db, name)).toMatchObject([{ id: skippedId, status: "completed" }]);
  expect(await listWindows(database.db, { runId: skippedId })).toMatchObject([
    { extracted_data: { output: "the answer" } },
  ]);
  expect((await offer(stream, assignment)).verdict).toBe(CompletionVerdict.ALREADY_STORED);
});

test("a start that waits again, because its run was forgotten, does not run again after the result came back", async () => {
  const { clients, device, stream } = await begin();
  const { id: runId, watcherId } = await startWork(clients, device);
  const assignment = await takeOn(stream);
  await stream.complete(assignment, "the answer");
  await forget(runId);
  await sql`insert into backlog (org_id, watcher_id, scheduled_for, source, run_id)
    values ('local', ${watcherId}, now() - interval '1 minute', 'manual', ${runId})`.execute(database.db);
  expect((await offer(stream, assignment)).verdict).toBe(CompletionVerdict.STORED_LATE);
  await materializeBacklogOnce(database.db, { doorbell: noteDoorbell(), log });
  expect(await listRuns(database.db, { orgId: "local", watcherId })).toMatchObject([
    { id: runId, status: "completed" },
  ]);
  expect(await listWindows(database.db, { runId })).toHaveLength(1);
});

/** A watcher that selects devices by a label of this test alone, and devices with the label. */
async function select(label: string, devices: number, spec: MessageInitShape<typeof WatcherSpecSchema> = {}) {
  const { clients, url } = replicas.here;
  const streams: { device: Identity; stream: DeviceStream }[] = [];
  for (let index = 0; index < devices; index++) {
    const device = await enrolDevice(clients);
    await clients.fleet.labelDevice({ deviceId: device.deviceId, add: [label] });
    streams.push({ device, stream: await connect(url, device) });
  }
  const { watcher } = await clients.watchers.createWatcher({
    spec: { name: label, prompt: "do it", selector: `"${label}" in labels`, ...spec },
  });
  return { clients, url, streams, watcher: watcher! };
}

test("a run that a selector placed comes back from its device, and from no device that does not match", async () => {
  const { clients, url, streams, watcher } = await select("forgotten-one", 1);
  const [{ stream }] = streams as [(typeof streams)[0]];
  const { run } = await clients.watchers.triggerWatcher({ watcherId: watcher.id });
  const assignment = await takeOn(stream);
  await stream.complete(assignment, "the answer");
  await forget(run!.id);
  const stranger = await connect(url, await enrolDevice(clients));
  expect((await offer(stranger, assignment)).verdict).toBe(CompletionVerdict.UNKNOWN);
  const worker = workerIdentity(await fleetToken(clients));
  expect((await offer(await connectWorker(url, worker), assignment)).verdict).toBe(CompletionVerdict.UNKNOWN);
  expect((await offer(stream, assignment)).verdict).toBe(CompletionVerdict.STORED_LATE);
  expect(await getRun(clients, { workId: run!.id })).toMatchObject({ status: RunStatus.COMPLETED });
});

test("a slot that was spread over devices comes back from each, and runs again on none", async () => {
  const { schedule, slot } = hourly();
  const { clients, streams, watcher } = await select("forgotten-all", 3, {
    ...{ spread: SpreadMode.ALL, schedule },
  });
  const name = { orgId: "local", watcherId: watcher.id };
  const due = async () => {
    await putSchedule(database.db, name, slot(0));
    await materializeOnce(database.db, { doorbell: noteDoorbell(), log });
    // A change of a device has the waiting runs placed.
    await clients.fleet.labelDevice({ deviceId: streams[0]!.device.deviceId, add: ["looked-at"] });
    await clients.fleet.labelDevice({ deviceId: streams[0]!.device.deviceId, remove: ["looked-at"] });
  };
  await due();
  const done: { stream: DeviceStream; assignment: Assignment }[] = [];
  for (const { stream } of streams) {
    const assignment = await takeOn(stream);
    await stream.complete(assignment, "the answer");
    done.push({ stream, assignment });
  }
  const ids = done.map(({ assignment }) => assignment.workId);
  expect(new Set(ids).size).toBe(3);
  for (const id of ids) await forget(id);
  const parent = done.find(
    ({ assignment }) => assignment.workId === slotRunId({ ...name, scheduledFor: slot(0) }),
  )!;
  const [early, late] = done.filter((one) => one !== parent);
  expect((await offer(early!.stream, early!.assignment)).verdict).toBe(CompletionVerdict.STORED_LATE);
  // The slot is recorded again: runs of the same names, which a device with a result answers at
  // once.
  await due();
  for (const { stream, assignment } of [parent, late!]) {
    const again = await takeOn(stream);
    expect(again.workId).toBe(assignment.workId);
    expect((await stream.complete(again, "the answer")).verdict).toBe(CompletionVerdict.STORED);
  }
  await early!.stream.beat();
  expect(early!.stream.waiting("assignment")).toEqual([]);
  expect(await listRuns(database.db, name)).toHaveLength(3);
});

test("what is not this device's is not restored: UNKNOWN, and nothing is written", async () => {
  const { clients, device, stream } = await begin();
  const { id: runId } = await startWork(clients, device);
  const assignment = await takeOn(stream);
  await stream.complete(assignment);
  await forget(runId);
  const other = await begin();
  expect((await offer(other.stream, assignment)).verdict).toBe(CompletionVerdict.UNKNOWN);
  const { rows } = await sql`select from run_all where id = ${runId}`.execute(database.db);
  expect(rows).toEqual([]);
});
