/** "Not now, but later": the next states of a run whose device asks for another try. */
import { durationFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { sql } from "kysely";
import { expect, test } from "vitest";
import { CompletionVerdict, Outcome } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../../../support/device.ts";
import { getRun, startWork, takeOn, untilStatus, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

async function begin() {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  return { clients, device, stream: await connect(url, device) };
}

async function askLater(stream: DeviceStream, attempt: { workId: string; attemptToken: string }, ms: number) {
  const { workId, attemptToken } = attempt;
  stream.send({
    case: "complete",
    value: {
      ...{ workId, attemptToken, outcome: Outcome.FAILED, output: "", exitCode: 75 },
      reason: "the provider is overloaded",
      stderrTail: "529 overloaded\n",
      retryAfter: durationFromMs(ms),
    },
  });
  return stream.next("completionAck");
}

test("a run that is put off goes back to pending, costs no attempt and no failure, says why, and is offered again by itself", async () => {
  const { clients, device, stream } = await begin();
  const { id: runId } = await startWork(clients, device, { maxAttempts: 1 });
  const first = await takeOn(stream);
  const askedAt = Date.now();
  expect(await askLater(stream, first, 1_500)).toMatchObject({ verdict: CompletionVerdict.STORED });

  const run = await getRun(clients, { workId: runId });
  expect(run).toMatchObject({ status: RunStatus.PENDING, attempt: 0 });
  expect(run.reason).toBe("the provider is overloaded (put off 1 of 12 times)");
  expect(timestampMs(run.notBefore!) - askedAt).toBeGreaterThan(1_000);
  const told = await clients.runs.explainRun({ runId });
  expect(told.summary).toMatch(/it waits until .* before it is offered again \(the provider is overloaded/);
  // The same report once more is answered as stored.
  expect(await askLater(stream, first, 1_500)).toMatchObject({ verdict: CompletionVerdict.ALREADY_STORED });

  const second = await takeOn(stream);
  expect(second).toMatchObject({ workId: runId, attempt: 1 });
  expect(second.attemptToken).not.toBe(first.attemptToken);
  await stream.complete(second);
  const ended = await untilStatus(clients, { workId: runId }, RunStatus.COMPLETED);
  expect(ended).toMatchObject({ attempt: 1, pastAttempts: [{ isReported: true }] });
  const { watcher } = await clients.watchers.getWatcher({ watcherId: run.watcherId });
  expect(watcher).toMatchObject({ consecutiveFailures: 0 });
  const { events } = await clients.events.listEvents({ runId });
  expect(events.map(({ kind }) => kind)).toContain("run.deferred");
});

test("a run is put off so often and no more; then it fails, and says how often it was", async () => {
  const { clients, device, stream } = await begin();
  const { id: runId } = await startWork(clients, device, { maxAttempts: 1 });
  const attempt = await takeOn(stream);
  await sql`update run set deferrals = 12 where id = ${runId}`.execute(database.db);
  await askLater(stream, attempt, 1_000);
  const ended = await untilStatus(clients, { workId: runId }, RunStatus.FAILED);
  expect(ended.reason).toBe("the provider is overloaded (put off 12 times before)");
  expect(ended.stderrTail).toBe("529 overloaded\n");
});

test("a run whose cancellation was asked for is not put off", async () => {
  const { clients, device, stream } = await begin();
  const { id: runId } = await startWork(clients, device);
  const attempt = await takeOn(stream);
  await clients.runs.cancelRun({ runId });
  await stream.next("cancel");
  await askLater(stream, attempt, 1_000);
  await expect.poll(async () => (await getRun(clients, { workId: runId })).finishedAt).toBeTruthy();
});

test("a completed run keeps the end of its standard error", async () => {
  const { clients, device, stream } = await begin();
  const { id: runId } = await startWork(clients, device);
  const { attemptToken } = await takeOn(stream);
  stream.send({
    case: "complete",
    value: {
      workId: runId,
      attemptToken,
      outcome: Outcome.COMPLETED,
      output: "ok",
      stderrTail: "a warning\n",
    },
  });
  await stream.next("completionAck");
  expect(await getRun(clients, { workId: runId })).toMatchObject({
    status: RunStatus.COMPLETED,
    stderrTail: "a warning\n",
  });
});
