/** The protocol of a device's session, point by point, as seen by a device and by watchers. */
import { randomUUID } from "node:crypto";
import { durationMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { status as grpcStatus } from "@grpc/grpc-js";
import { createClients } from "@pinion/client";
import { expect, test, vi } from "vitest";
import {
  CompletionVerdict,
  DrainReason,
  HeldVerdict,
  Outcome,
  RejectReason,
} from "#gen/pinion/v1/device_pb.js";
import { Liveness } from "#gen/pinion/v1/fleet_pb.js";
import { OutputStream, RunStatus } from "#gen/pinion/v1/run_pb.js";
import * as presence from "../../../../src/store/work/service/presence.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, dial, enrolDevice } from "../../../support/device.ts";
import { hold } from "../../../support/locks.ts";
import { ageRun, currentSession } from "../../../support/rows.ts";
import { startTestReplica } from "../../../support/server.ts";
import {
  getRun,
  heldOf,
  startWork,
  takeOn,
  untilStatus,
  useReplicas,
  watchRun,
} from "../../../support/work.ts";
import { connectWorker, fleetToken, workerIdentity } from "../../../support/worker.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here", "there");

type Attempt = { workId: string; attemptToken: string };

/**
 * The sweep that repairs lost wake-ups comes after 15 s: an assignment within this time was pushed.
 */
const atOnceMs = 1_000;

/** A device with a stream; on a separate replica if `env` is given. */
async function begin(env?: Record<string, string>, hello: Parameters<typeof connect>[2] = {}) {
  const replica = env ? await startTestReplica(database.url, env) : replicas.here;
  const device = await enrolDevice(replica.clients);
  const stream = await connect(replica.url, device, hello);
  return { replica, clients: replica.clients, url: replica.url, device, stream };
}

/**
 * The device has all earlier messages of the server: an answer came, and the messages before the
 * answer.
 */
const settle = (stream: DeviceStream, ...attempts: Attempt[]) => stream.beat(attempts);

test("the welcome names the device, its session, the timers and the limits", async () => {
  const { device, stream, replica } = await begin({ PINION_ACCEPT_DEADLINE_MS: "7000" });
  const { welcome } = stream;
  expect(welcome).toMatchObject({
    deviceId: device.deviceId,
    sessionEpoch: 1n,
    replicaId: replica.replicaId,
  });
  expect(durationMs(welcome.timers!.heartbeatInterval!)).toBe(1_000);
  expect(durationMs(welcome.timers!.ttl!)).toBe(60_000);
  expect(durationMs(welcome.timers!.acceptDeadline!)).toBe(7_000);
  expect(welcome.limits).toMatchObject({
    messageBytesMax: 4_194_304n,
    completionOutputBytesMax: 1_048_576n,
    outputChunkBytesMax: 32_768n,
  });
  expect((await connect(replica.url, device)).welcome.sessionEpoch).toBe(2n);
});

test("an assignment carries what is to be done and for whom", async () => {
  const { clients, device, stream } = await begin();
  const run = await startWork(clients, device, { prompt: "count the stars", agentKind: "test" });
  const assignment = await stream.next("assignment");
  expect(assignment).toMatchObject({
    workId: run.id,
    attempt: 1,
    agentKind: "test",
    watcher: { id: run.watcherId, prompt: "count the stars", version: 1 },
    agent: { id: "pinion-default" },
    context: {
      deviceId: device.deviceId,
      conversationId: `pinion-default_watcher_${run.watcherId}_run_${run.id}`,
    },
  });
  expect(assignment.attemptToken).toMatch(/^[0-9a-f-]{36}$/);
  expect(assignment.context!.priorWindow).toBeUndefined();
  stream.accept(assignment);
  await stream.complete(assignment, "many");
  await clients.watchers.triggerWatcher({ watcherId: run.watcherId });
  const second = await stream.next("assignment");
  expect(second.context!.priorWindow!.extractedData).toMatchObject({ output: "many" });
});

test("a device never has more attempts than it asked for, and a freed slot is filled at once", async () => {
  const { clients, device, stream } = await begin(undefined, { maxConcurrency: 2 });
  for (let i = 0; i < 4; i++) await startWork(clients, device);
  const first = await takeOn(stream);
  const second = await takeOn(stream);
  await settle(stream, first, second);
  expect(stream.waiting("assignment")).toEqual([]);
  await stream.complete(first);
  const third = await stream.next("assignment", atOnceMs);
  await settle(stream, second, third);
  expect(stream.waiting("assignment")).toEqual([]);
  await stream.complete(third);
  await stream.next("assignment", atOnceMs);
});

test("an assignment does not wait for heartbeats that are being written", async () => {
  const { clients, device, stream } = await begin();
  await using beats = await hold(database.db);
  const { deviceId } = device;
  await presence.beat(beats.tx, [await currentSession(database.db, { orgId: "local", deviceId })]);
  await startWork(clients, device);
  await stream.next("assignment", atOnceMs);
});

test("a run that is over as soon as it was accepted shows when it was pushed and when it started", async () => {
  const { clients, device, stream } = await begin();
  const run = await startWork(clients, device);
  const assignment = await stream.next("assignment");
  stream.accept(assignment);
  expect((await stream.complete(assignment)).verdict).toBe(CompletionVerdict.STORED);
  const { dueAt, pushedAt, startedAt, finishedAt } = await getRun(clients, { workId: run.id });
  const moments = [dueAt, pushedAt, startedAt, finishedAt].map((at) => timestampMs(at!));
  expect(moments).toEqual(moments.toSorted((a, b) => a - b));
});

test("an attempt that is failed, turned down for good, or cancelled frees its slot at once", async () => {
  const { clients, device, stream } = await begin();
  for (let i = 0; i < 4; i++) await startWork(clients, device);
  const failed = await takeOn(stream);
  await stream.complete(failed, "", Outcome.FAILED, "no luck");
  const refused = await stream.next("assignment", atOnceMs);
  stream.send({
    case: "reject",
    value: { ...nameOf(refused), reason: RejectReason.UNSUPPORTED, message: "no such executor" },
  });
  const cancelled = await stream.next("assignment", atOnceMs);
  stream.accept(cancelled);
  await clients.runs.cancelRun({ runId: cancelled.workId });
  const cancel = await stream.next("cancel");
  // The device itself rejected this run, and is not asked to cancel it.
  expect(cancel.workId).toBe(cancelled.workId);
  stream.send({ case: "cancelled", value: nameOf(cancel) });
  await stream.next("assignment", atOnceMs);
  expect(await getRun(clients, failed)).toMatchObject({ status: RunStatus.FAILED, reason: "no luck" });
});

test("an assignment that nobody answers is pushed once more, withdrawn without counting, and offered again", async () => {
  const { clients, device, stream } = await begin({
    PINION_ACCEPT_DEADLINE_MS: "300",
    PINION_SWEEP_INTERVAL_MS: "200",
  });
  await startWork(clients, device);
  const pushed = await stream.next("assignment");
  const again = await stream.next("assignment");
  expect(again).toEqual(pushed);
  expect((await getRun(clients, pushed)).status).toBe(RunStatus.CLAIMED);
  const withdrawn = await untilStatus(clients, pushed, RunStatus.PENDING);
  expect(withdrawn.attempt).toBe(0);
  expect(stream.waiting("assignment")).toEqual([]);
  // A late answer changes nothing, and the device gets the verdict.
  stream.accept(pushed);
  await vi.waitFor(() => expect(stream.waiting("cancel").length).toBeGreaterThan(0));
  expect((await getRun(clients, pushed)).status).toBe(RunStatus.PENDING);
  await ageRun(database.db, { runId: pushed.workId }, { not_before: 1 });
  const offered = await stream.next("assignment");
  expect(offered).toMatchObject({ workId: pushed.workId, attempt: pushed.attempt });
  expect(offered.attemptToken).not.toBe(pushed.attemptToken);
  stream.accept(offered);
  expect((await stream.complete(offered)).verdict).toBe(CompletionVerdict.STORED);
  expect((await stream.complete(pushed)).verdict).toBe(CompletionVerdict.SUPERSEDED);
});

test("a busy device is offered the run again, without counting; an unsupported run fails with the device's words", async () => {
  const { clients, device, stream } = await begin({ PINION_SWEEP_INTERVAL_MS: "200" });
  const run = await startWork(clients, device);
  const busy = await stream.next("assignment");
  stream.send({ case: "reject", value: { ...nameOf(busy), reason: RejectReason.BUSY, message: "lunch" } });
  const pending = await untilStatus(clients, busy, RunStatus.PENDING);
  expect(pending.attempt).toBe(0);
  expect(Number(pending.notBefore!.seconds) * 1000).toBeGreaterThan(Date.now() - 1000);
  await ageRun(database.db, { runId: busy.workId }, { not_before: 1 });
  const offered = await stream.next("assignment");
  expect(offered).toMatchObject({ workId: run.id, attempt: 1 });
  stream.send({
    case: "reject",
    value: { ...nameOf(offered), reason: RejectReason.UNSUPPORTED, message: "I have no such program" },
  });
  const failed = await untilStatus(clients, offered, RunStatus.FAILED);
  expect(failed.reason).toContain("I have no such program");
});

test("an attempt that is turned down after it was accepted counts, whatever the reason", async () => {
  const { clients, device, stream } = await begin();
  await startWork(clients, device, { maxAttempts: 2 });
  const accepted = await takeOn(stream);
  await untilStatus(clients, accepted, RunStatus.RUNNING);
  stream.send({
    case: "reject",
    value: { ...nameOf(accepted), reason: RejectReason.SHUTTING_DOWN, message: "lights out" },
  });
  const again = await untilStatus(clients, accepted, RunStatus.PENDING);
  expect(again).toMatchObject({ attempt: 1, reason: "given up by the device: lights out" });
});

test("a session whose end is recorded while its device is here opens anew, and its run goes on", async () => {
  const { clients, url, device, stream } = await begin();
  await startWork(clients, device);
  const assignment = await takeOn(stream);
  // The state of a promoted standby: the device's disconnect was replicated, and its reconnect was
  // not.
  await database.db
    .updateTable("presence")
    .set({ disconnected_at: new Date() })
    .where("device_id", "=", device.deviceId)
    .execute();
  await stream.beat([assignment]);
  await stream.next("drain");
  await stream.ended;
  const again = await connect(url, device, { held: [heldOf(assignment)] });
  expect(again.welcome.verdicts).toMatchObject([{ ...nameOf(assignment), verdict: HeldVerdict.CONTINUE }]);
  expect((await again.complete(assignment)).verdict).toBe(CompletionVerdict.STORED);
});

test.for(["here", "there"] as const)(
  "after a failover took the epoch back, a stream that is opened %s replaces the one from before it",
  async (where) => {
    const { clients, device, stream } = await begin();
    await startWork(clients, device);
    const assignment = await takeOn(stream);
    await database.db
      .updateTable("presence")
      .set({ epoch: -3, session_id: randomUUID() })
      .where("device_id", "=", device.deviceId)
      .execute();
    const newer = await connect(replicas[where].url, device, { held: [heldOf(assignment)] });
    expect(newer.welcome.sessionEpoch).toBeLessThan(stream.welcome.sessionEpoch);
    // On another replica, the next beat brings the news.
    stream.beat([assignment]).catch(() => undefined);
    expect((await stream.next("drain")).reason).toBe(DrainReason.REPLACED);
    await stream.ended;
    await newer.beat([assignment]);
    expect(newer.waiting("drain")).toEqual([]);
    const shown = await clients.fleet.getDevice({ deviceId: device.deviceId });
    expect(shown.device).toMatchObject({ liveness: Liveness.ONLINE });
    expect((await newer.complete(assignment)).verdict).toBe(CompletionVerdict.STORED);
  },
);

test.each(["the same replica", "another replica"])(
  "a newer stream on %s replaces the older one, and what runs goes on in it",
  async (where) => {
    const { replica, clients, device, stream } = await begin();
    const other = where === "the same replica" ? replica : replicas.there;
    await startWork(clients, device);
    const assignment = await takeOn(stream);
    const newer = await connect(other.url, device, { held: [heldOf(assignment)] });
    expect(newer.welcome.verdicts).toMatchObject([{ ...nameOf(assignment), verdict: HeldVerdict.CONTINUE }]);
    const drain = await stream.next("drain", atOnceMs);
    expect(drain.reason).toBe(DrainReason.REPLACED);
    expect((await stream.ended).code).toBe(grpcStatus.OK);
    // The late end of the older stream leaves the newer session alone.
    const { device: seen } = await clients.fleet.getDevice({ deviceId: device.deviceId });
    expect(seen).toMatchObject({
      liveness: Liveness.ONLINE,
      replicaId: other.replicaId,
      sessionEpoch: newer.welcome.sessionEpoch,
    });
    expect((await newer.complete(assignment)).verdict).toBe(CompletionVerdict.STORED);
    await startWork(clients, device);
    await newer.next("assignment", atOnceMs);
  },
);

test("a device that comes back is told, for each attempt it holds, what to do with it", async () => {
  const { url, clients, device, stream } = await begin(undefined, { maxConcurrency: 3 });
  for (let i = 0; i < 3; i++) await startWork(clients, device);
  const running = await takeOn(stream);
  const finished = await takeOn(stream, running);
  const stored = await takeOn(stream, running, finished);
  await stream.complete(stored);
  stream.cancel();
  const stranger = { workId: running.workId, attemptToken: randomUUID() };
  const back = await connect(url, device, {
    maxConcurrency: 3,
    held: [heldOf(running, 1), heldOf(finished, 2), heldOf(stored, 2), heldOf(stranger, 1)],
  });
  expect(back.welcome.verdicts).toMatchObject([
    { ...nameOf(running), verdict: HeldVerdict.CONTINUE },
    { ...nameOf(finished), verdict: HeldVerdict.SEND_RESULT },
    { ...nameOf(stored), verdict: HeldVerdict.ALREADY_STORED },
    { ...stranger, verdict: HeldVerdict.ABORT },
  ]);
  expect((await back.complete(finished)).verdict).toBe(CompletionVerdict.STORED);
  expect((await back.complete(stored)).verdict).toBe(CompletionVerdict.ALREADY_STORED);
  expect((await back.complete(stranger)).verdict).toBe(CompletionVerdict.UNKNOWN);
  expect((await back.complete(running)).verdict).toBe(CompletionVerdict.STORED);
});

test("a pending run is cancelled in place, and its device never hears of it", async () => {
  const { url, clients, device, stream } = await begin();
  stream.cancel();
  const run = await startWork(clients, device);
  const { run: cancelled } = await clients.runs.cancelRun({ runId: run.id, reason: "changed my mind" });
  expect(cancelled).toMatchObject({ status: RunStatus.CANCELLED, reason: "changed my mind" });
  const back = await connect(url, device);
  await settle(back);
  expect(back.waiting("assignment")).toEqual([]);
  expect(back.waiting("cancel")).toEqual([]);
});

test.each(["the same replica", "another replica"])(
  "cancelling a running run on %s asks the device, and ends the run when the device says so",
  async (where) => {
    const { replica, clients, device, stream } = await begin();
    const other = where === "the same replica" ? replica : replicas.there;
    await startWork(clients, device);
    const assignment = await takeOn(stream);
    await untilStatus(clients, assignment, RunStatus.RUNNING);
    const { run } = await other.clients.runs.cancelRun({ runId: assignment.workId, reason: "enough" });
    expect(run!.status).toBe(RunStatus.RUNNING);
    const cancel = await stream.next("cancel", atOnceMs);
    expect(cancel).toMatchObject({ ...nameOf(assignment), reason: "enough" });
    stream.send({ case: "cancelled", value: nameOf(cancel) });
    const ended = await untilStatus(clients, assignment, RunStatus.CANCELLED);
    expect(ended.reason).toBe("enough");
    // A completion that crossed the cancellation is answered, and changes nothing.
    expect((await stream.complete(assignment)).verdict).not.toBe(CompletionVerdict.STORED);
    expect((await getRun(clients, assignment)).status).toBe(RunStatus.CANCELLED);
  },
);

test("a cancellation is repeated after every reconnect until the device answers it", async () => {
  const { url, clients, device, stream } = await begin();
  await startWork(clients, device);
  const assignment = await takeOn(stream);
  await clients.runs.cancelRun({ runId: assignment.workId, reason: "enough" });
  await stream.next("cancel");
  stream.cancel();
  for (let visit = 0; visit < 2; visit++) {
    const back = await connect(url, device, { held: [heldOf(assignment)] });
    expect(await back.next("cancel", atOnceMs)).toMatchObject({ ...nameOf(assignment), reason: "enough" });
    back.cancel();
  }
  const last = await connect(url, device, { held: [heldOf(assignment)] });
  last.send({ case: "cancelled", value: nameOf(await last.next("cancel")) });
  await untilStatus(clients, assignment, RunStatus.CANCELLED);
  const after = await connect(url, device);
  await settle(after);
  expect(after.waiting("cancel")).toEqual([]);
});

test("a running attempt that two heartbeats do not list is lost now, not after the TTL", async () => {
  const { clients, device, stream } = await begin({ PINION_HEARTBEAT_TTL_MS: "60000" });
  await startWork(clients, device);
  const assignment = await takeOn(stream);
  await untilStatus(clients, assignment, RunStatus.RUNNING);
  await stream.beat([]);
  await stream.beat([assignment]);
  await stream.beat([]);
  expect((await getRun(clients, assignment)).status).toBe(RunStatus.RUNNING);
  await stream.beat([]);
  const lost = await untilStatus(clients, assignment, RunStatus.TIMEOUT, 2_000);
  expect(lost.reason).toContain("2 successive heartbeats did not list it");
  await startWork(clients, device);
  await stream.next("assignment", atOnceMs);
});

test("an attempt that is not the device's is disowned when a heartbeat lists it", async () => {
  const { stream } = await begin();
  const stranger = { workId: randomUUID(), attemptToken: randomUUID() };
  await stream.beat([stranger]);
  expect(await stream.next("cancel")).toMatchObject(stranger);
});

test("a stream that says nothing for the TTL is closed, and one that beats is not", async () => {
  const timers = { PINION_HEARTBEAT_INTERVAL_MS: "200", PINION_HEARTBEAT_TTL_MS: "800" };
  const { url, clients, device: silent, stream } = await begin(timers);
  const beating = await connect(url, await enrolDevice(clients));
  const startedAt = performance.now();
  const beats = setInterval(() => void beating.beat().catch(() => {}), 100);
  const ended = await stream.ended;
  expect(ended).toEqual({
    code: grpcStatus.DEADLINE_EXCEEDED,
    details: "nothing was received for 800 ms; connect again",
  });
  expect(performance.now() - startedAt).toBeLessThan(10_000);
  clearInterval(beats);
  await beating.beat();
  await vi.waitFor(async () => {
    const { device } = await clients.fleet.getDevice({ deviceId: silent.deviceId });
    expect(device!.liveness).toBe(Liveness.OFFLINE);
  });
});

test("a stream is drained at its maximum age, and the attempt goes on in the next one", async () => {
  const { url, clients, device, stream } = await begin({ PINION_STREAM_AGE_MS: "500" });
  await startWork(clients, device);
  const assignment = await takeOn(stream);
  const drain = await stream.next("drain", 2_000);
  expect(drain.reason).toBe(DrainReason.MAX_AGE);
  expect(durationMs(drain.reconnectAfter!)).toBeLessThanOrEqual(5_000);
  // A drained stream gets no more work, and is still heard.
  const other = await startWork(clients, device);
  await stream.beat([assignment]);
  expect(stream.waiting("assignment")).toEqual([]);
  const next = await connect(url, device, { held: [heldOf(assignment)] });
  expect(next.welcome.verdicts[0]!.verdict).toBe(HeldVerdict.CONTINUE);
  await next.complete(assignment);
  expect((await next.next("assignment")).workId).toBe(other.id);
});

test("a replica that stops hands its devices to another one, where the attempt completes once", async () => {
  const { replica, device, stream } = await begin({});
  const other = replicas.there;
  await startWork(other.clients, device);
  const assignment = await takeOn(stream);
  const stopping = replica.stop();
  const drain = await stream.next("drain");
  expect(drain.reason).toBe(DrainReason.SHUTDOWN);
  const next = await connect(other.url, device, { held: [heldOf(assignment)] });
  expect(next.welcome.verdicts[0]!.verdict).toBe(HeldVerdict.CONTINUE);
  await stopping;
  await stream.ended;
  expect((await getRun(other.clients, assignment)).status).toBe(RunStatus.RUNNING);
  expect((await next.complete(assignment)).verdict).toBe(CompletionVerdict.STORED);
  expect((await next.complete(assignment)).verdict).toBe(CompletionVerdict.ALREADY_STORED);
  const { windows } = await other.clients.runs.listWindows({ watcherId: assignment.watcher!.id });
  expect(windows).toHaveLength(1);
  expect((await getRun(other.clients, assignment)).attempt).toBe(1);
});

test("a completion by the unary call, through another replica, frees the slot where the stream is", async () => {
  const { clients, device, stream } = await begin();
  const other = replicas.there;
  await startWork(clients, device);
  await startWork(clients, device);
  const assignment = await takeOn(stream);
  const unary = createClients({ url: other.url, token: device.token });
  const completion = { ...nameOf(assignment), outcome: Outcome.COMPLETED, output: "by hand" };
  expect((await unary.device.completeRun({ completion })).verdict).toBe(CompletionVerdict.STORED);
  await stream.next("assignment", atOnceMs);
  expect((await unary.device.completeRun({ completion })).verdict).toBe(CompletionVerdict.ALREADY_STORED);
  expect((await stream.complete(assignment)).verdict).toBe(CompletionVerdict.ALREADY_STORED);
});

test.each([
  ["a revoked token", "the same replica"],
  ["a revoked token", "another replica"],
  ["a deleted device", "the same replica"],
  ["a deleted device", "another replica"],
])("%s ends the device's stream from %s, and the device does not come back", async (what, where) => {
  const { replica, url, clients, device, stream } = await begin();
  const from = where === "the same replica" ? replica : replicas.there;
  await startWork(clients, device);
  const assignment = await takeOn(stream);
  const startedAt = performance.now();
  if (what === "a revoked token") {
    const { tokens } = await clients.tokens.listTokens({ pageSize: 500 });
    const token = tokens.find((candidate) => candidate.deviceId === device.deviceId)!;
    await from.clients.tokens.revokeToken({ tokenId: token.id });
  } else {
    await from.clients.fleet.deleteDevice({ deviceId: device.deviceId });
  }
  expect((await stream.next("drain", 10_000)).reason).toBe(DrainReason.REVOKED);
  expect((await stream.ended).code).toBe(grpcStatus.UNAUTHENTICATED);
  expect(performance.now() - startedAt).toBeLessThan(12_000);
  const again = connect(url, device);
  await expect(again).rejects.toThrow(/unknown, revoked or expired/);
  // The attempts of a deleted device will never be reported; a revoked device may be enrolled
  // again.
  const status = what === "a deleted device" ? RunStatus.CANCELLED : RunStatus.RUNNING;
  await untilStatus(clients, assignment, status);
});

test.each(["the same replica", "another replica"])(
  "an operator disconnects a device from %s, and it comes back",
  async (where) => {
    const { replica, url, clients, device, stream } = await begin();
    const from = where === "the same replica" ? replica : replicas.there;
    await from.clients.fleet.disconnectDevice({ deviceId: device.deviceId });
    expect((await stream.next("drain", atOnceMs)).reason).toBe(DrainReason.OPERATOR);
    stream.end();
    expect((await stream.ended).code).toBe(grpcStatus.OK);
    await vi.waitFor(async () => {
      const refused = clients.fleet.disconnectDevice({ deviceId: device.deviceId });
      await expect(refused).rejects.toMatchObject({ reason: "failed_precondition" });
    });
    await (await connect(url, device)).beat();
  },
);

test.each(["the same replica", "another replica"])(
  "output reaches those who watch the run on %s in order, late ones from its tail, and ends with the run",
  async (where) => {
    const { replica, clients, device, stream } = await begin();
    const from = where === "the same replica" ? replica : replicas.there;
    await startWork(clients, device);
    const assignment = await takeOn(stream);
    const early = watchRun(from.clients, assignment);
    await early.begun();
    const lines = Array.from({ length: 50 }, (_, at) => `line ${at + 1}\n`);
    const say = (from: number, to: number) => {
      for (let at = from; at < to; at++) {
        stream.send({
          case: "output",
          value: {
            ...nameOf(assignment),
            sequence: BigInt(at + 1),
            stream: OutputStream.STDOUT,
            data: Buffer.from(lines[at]!),
          },
        });
      }
    };
    say(0, 25);
    await vi.waitFor(() => expect(early.outputs).toHaveLength(25), { timeout: 5_000 });
    const late = watchRun(from.clients, assignment);
    await late.begun();
    await vi.waitFor(() => expect(late.outputs).toHaveLength(25), { timeout: 5_000 });
    say(25, 50);
    await vi.waitFor(() => expect(late.outputs).toHaveLength(50), { timeout: 5_000 });
    await stream.complete(assignment, "the end");
    await Promise.all([early.ended, late.ended]);
    for (const watch of [early, late]) {
      expect(watch.text()).toBe(lines.join(""));
      expect(watch.outputs.map((output) => Number(output.sequence))).toEqual(lines.map((_, at) => at + 1));
      expect(watch.runs.at(-1)).toMatchObject({
        status: RunStatus.COMPLETED,
        windowId: expect.stringMatching(/./),
      });
    }
  },
);

test.each(["the same replica", "another replica"])(
  "a sequence of 64 bits reaches those who watch on %s as it was sent",
  async (where) => {
    const { replica, clients, device, stream } = await begin();
    await startWork(clients, device);
    const assignment = await takeOn(stream);
    const watch = watchRun((where === "the same replica" ? replica : replicas.there).clients, assignment);
    await watch.begun();
    const sequences = [1n, 2n ** 53n + 1n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n];
    for (const sequence of sequences) {
      stream.send({
        case: "output",
        value: { ...nameOf(assignment), sequence, stream: OutputStream.STDOUT, data: Buffer.from("x") },
      });
    }
    await vi.waitFor(() => expect(watch.outputs.map(({ sequence }) => sequence)).toEqual(sequences), {
      timeout: 5_000,
    });
    await stream.complete(assignment, "the end");
    await watch.ended;
  },
);

test("somebody who begins to watch a run that has ended gets its end and nothing else", async () => {
  const { clients, device, stream } = await begin();
  await startWork(clients, device);
  const assignment = await takeOn(stream);
  await stream.complete(assignment, "done");
  const watch = watchRun(clients, assignment);
  await watch.ended;
  expect(watch.runs).toMatchObject([{ status: RunStatus.COMPLETED }]);
  expect(watch.outputs).toEqual([]);
});

test("a flood of output holds up neither heartbeats nor the completion", async () => {
  const { clients, device, stream } = await begin();
  await startWork(clients, device);
  const assignment = await takeOn(stream);
  const data = Buffer.alloc(32_768, "x");
  for (let at = 0; at < 200; at++) {
    stream.send({
      case: "output",
      value: { ...nameOf(assignment), sequence: BigInt(at + 1), stream: OutputStream.STDOUT, data },
    });
  }
  await stream.beat([assignment]);
  expect((await stream.complete(assignment)).verdict).toBe(CompletionVerdict.STORED);
});

/** Opens streams without a hello; returns the first ended stream. */
async function firstRefused(url: string, token: string, count: number) {
  const streams = Array.from({ length: count }, () => dial(url, token));
  const refused = await Promise.race(
    streams.map(async (stream) => ({ stream, ...(await stream.ended), hasRetryInfo: stream.hasRetryInfo })),
  );
  return { refused, open: streams.filter((stream) => stream !== refused.stream) };
}

test("a device has four streams at most before it says hello, and no other device is kept out by them", async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const { refused, open } = await firstRefused(url, device.token, 5);
  expect(refused).toMatchObject({
    code: grpcStatus.RESOURCE_EXHAUSTED,
    details: expect.stringContaining("a device has at most 4 streams on a replica"),
    hasRetryInfo: true,
  });
  const other = await enrolDevice(clients);
  await connect(url, other);
  for (const stream of open) stream.cancel();
  // The replica notices the ends after a while.
  await vi.waitFor(() => connect(url, device), { timeout: 5_000, interval: 100 });
});

test("a service's token has sixteen streams that have not said hello; those that have do not count", async () => {
  const { clients, url } = replicas.here;
  const token = await fleetToken(clients);
  for (let count = 0; count < 3; count++) await connectWorker(url, workerIdentity(token));
  const { refused } = await firstRefused(url, token.secret, 17);
  expect(refused).toMatchObject({
    code: grpcStatus.RESOURCE_EXHAUSTED,
    details: expect.stringContaining("16 streams of the token have not said hello"),
    hasRetryInfo: true,
  });
});

function nameOf({ workId, attemptToken }: Attempt) {
  return { workId, attemptToken };
}

test("a program that is lost or cancelled leaves the end of what it wrote, though its device never sent it", async () => {
  const { clients, device, stream, replica } = await begin({ PINION_HEARTBEAT_TTL_MS: "3000" });
  const run = await startWork(clients, device);
  const { workId, attemptToken } = await takeOn(stream);
  stream.send({
    case: "output",
    value: {
      workId,
      attemptToken,
      sequence: 1n,
      stream: OutputStream.STDOUT,
      data: new TextEncoder().encode("half of a report"),
    },
  });
  await settle(stream, { workId, attemptToken });
  stream.cancel();
  await untilStatus(clients, { workId: run.id }, RunStatus.TIMEOUT, 20_000);
  await vi.waitFor(async () =>
    expect((await getRun(clients, { workId })).outputTail).toBe("half of a report"),
  );

  const again = await connect(replica.url, device);
  await startWork(clients, device);
  const second = await takeOn(again);
  again.send({
    case: "output",
    value: {
      workId: second.workId,
      attemptToken: second.attemptToken,
      sequence: 1n,
      stream: OutputStream.STDOUT,
      data: new TextEncoder().encode("so far"),
    },
  });
  await clients.runs.cancelRun({ runId: second.workId });
  await again.next("cancel");
  again.send({ case: "cancelled", value: { workId: second.workId, attemptToken: second.attemptToken } });
  await untilStatus(clients, second, RunStatus.CANCELLED);
  await vi.waitFor(async () => expect((await getRun(clients, second)).outputTail).toBe("so far"));
});
