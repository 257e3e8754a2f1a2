/**
 * Devices that name an attempt of another device, with its true token, in every message: nothing of
 * the attempt changes, and its own device stores its result (R6).
 */
import { randomUUID } from "node:crypto";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { createClients } from "@pinion/client";
import { expect, test, vi } from "vitest";
import { QuestionOptionKind } from "#gen/pinion/v1/activity_pb.js";
import {
  CompletionVerdict,
  HeldAttemptState,
  HeldVerdict,
  Outcome,
  QuestionCloseReason,
  RejectReason,
} from "#gen/pinion/v1/device_pb.js";
import { OutputStream, QuestionState, RunSource, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, dial, enrolDevice, type Identity } from "../../../support/device.ts";
import { addDevice, addTenant } from "../../../support/tenants.ts";
import { getRun, heldOf, startWork, takeOn, usePatientReplicas, watchRun } from "../../../support/work.ts";
import { connectWorker, fleetToken, workerIdentity } from "../../../support/worker.ts";

const database = useDatabase({ per: "file" });
const replicas = usePatientReplicas(database, "here", "there");

type Attempt = { workId: string; attemptToken: string };
const nameOf = ({ workId, attemptToken }: Attempt): Attempt => ({ workId, attemptToken });
type Sent = Parameters<DeviceStream["send"]>[0];

const question = (id: string) => ({
  ...{ id, title: "May I?" },
  options: [
    { id: "yes", label: "Yes", kind: QuestionOptionKind.ALLOW_ONCE },
    { id: "no", label: "No", kind: QuestionOptionKind.DENY_ONCE },
  ],
});

/**
 * Every message about an attempt, in every form; the test below compares with the protocol's kinds.
 */
function messagesAbout(attempt: Attempt, watcherId: string): Sent[] {
  const moment = timestampNow();
  const reoffer = {
    ...{ watcherId, attempt: 1, source: RunSource.MANUAL, windowStart: moment, windowEnd: moment },
  };
  const data = Buffer.from("FORGED");
  const outcomes = [Outcome.COMPLETED, Outcome.FAILED, Outcome.TIMEOUT, Outcome.CANCELLED];
  const rejects = [RejectReason.BUSY, RejectReason.UNSUPPORTED, RejectReason.INVALID];
  return [
    { case: "heartbeat", value: { sequence: 2n, attempts: [attempt] } },
    { case: "accept", value: attempt },
    ...rejects.map((reason): Sent => ({ case: "reject", value: { ...attempt, reason, message: "FORGED" } })),
    { case: "output", value: { ...attempt, sequence: 1n, stream: OutputStream.STDOUT, data } },
    {
      case: "activity",
      value: {
        ...attempt,
        activities: [{ sequence: 1n, at: moment, body: { case: "text", value: { text: "FORGED" } } }],
      },
    },
    { case: "question", value: { ...attempt, question: question("q1") } },
    { case: "question", value: { ...attempt, question: question("FORGED") } },
    ...[QuestionCloseReason.EXPIRED, QuestionCloseReason.WITHDRAWN].map(
      (reason): Sent => ({ case: "questionClosed", value: { ...attempt, questionId: "q1", reason } }),
    ),
    { case: "cancelled", value: attempt },
    ...outcomes.flatMap((outcome): Sent[] => [
      { case: "complete", value: { ...attempt, outcome, output: "FORGED" } },
      { case: "complete", value: { ...attempt, outcome, output: "FORGED", reoffer } },
    ]),
    { case: "logExcerpt", value: { requestId: randomUUID(), text: "FORGED" } },
    { case: "heartbeat", value: { sequence: 3n } },
  ] as Sent[];
}

/**
 * Sends the messages over a stream each time anew, also after the stream was ended for one of them.
 */
async function sendAll(open: () => Promise<DeviceStream>, attempt: Attempt, watcherId: string) {
  for (const message of messagesAbout(attempt, watcherId)) {
    const stream = await open();
    stream.send(message);
    const settled = stream.beat([], 9n).catch(() => {});
    await Promise.race([settled, stream.ended]);
    stream.cancel();
    await stream.ended;
  }
}

/** A stream whose hello says that the attempt is held in each of the states. */
async function holdAll(dialOn: () => DeviceStream, identity: Identity, attempt: Attempt) {
  for (const state of [HeldAttemptState.RUNNING, HeldAttemptState.FINISHED]) {
    const stream = dialOn();
    stream.hello(identity, { held: [heldOf(attempt, state)] });
    const { verdicts } = await stream.next("welcome");
    expect(verdicts.map(({ verdict }) => verdict)).not.toContain(HeldVerdict.CONTINUE);
    stream.cancel();
    await stream.ended;
  }
}

async function beginOn(stream: DeviceStream, device: Identity) {
  const run = await startWork(replicas.here.clients, device);
  const attempt = nameOf(await takeOn(stream));
  expect(attempt.workId).toBe(run.id);
  stream.send({ case: "question", value: { ...attempt, question: question("q1") } });
  await vi.waitFor(async () => expect((await getRun(replicas.here.clients, attempt)).openQuestions).toBe(1));
  return { run, attempt };
}

/** The attempt goes on as if nobody had spoken, and its device's result is the run's. */
async function isUnharmed(stream: DeviceStream, attempt: Attempt, watching: ReturnType<typeof watchRun>) {
  const { clients } = replicas.here;
  await stream.beat([attempt], 5n);
  expect(await getRun(clients, attempt)).toMatchObject({
    ...{ status: RunStatus.RUNNING, attempt: 1, openQuestions: 1 },
  });
  const { questions } = await clients.runs.listQuestions({ runId: attempt.workId });
  expect(questions).toMatchObject([{ state: QuestionState.OPEN, question: { id: "q1" } }]);
  expect(stream.waiting("cancel")).toEqual([]);
  expect((await stream.complete(attempt, "true")).verdict).toBe(CompletionVerdict.STORED);
  const { run, lateResults } = await clients.runs.getRun({ runId: attempt.workId });
  expect(run).toMatchObject({ status: RunStatus.COMPLETED, attempt: 1 });
  expect(lateResults).toEqual([]);
  const { windows } = await clients.runs.listWindows({ watcherId: run?.watcherId ?? "" });
  expect(windows).toMatchObject([{ extractedData: { output: "true" } }]);
  await watching.ended;
  expect(watching.text()).not.toContain("FORGED");
  expect(watching.activities).toEqual([]);
}

const where = ["here", "there"] as const;

test.each(where)("another device of the org, %s, changes nothing of a device's attempt", async (at) => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const { run, attempt } = await beginOn(stream, device);
  const watching = watchRun(clients, attempt);
  await watching.begun();
  const other = await enrolDevice(clients);
  const strange = replicas[at].url;
  await sendAll(() => connect(strange, other), attempt, run.watcherId);
  await holdAll(() => dial(strange, other.token), other, attempt);
  await isUnharmed(stream, attempt, watching);
});

test("a device of another org changes nothing of a device's attempt", async () => {
  const { clients, url } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const { run, attempt } = await beginOn(stream, device);
  const watching = watchRun(clients, attempt);
  await watching.begun();
  const tenant = await addTenant(database.db, `org-${randomUUID().slice(0, 8)}`);
  const installId = randomUUID();
  const enrolled = await addDevice(database.db, tenant, { installId });
  const other = { deviceId: enrolled.deviceId, installId, token: enrolled.secret, label: "box" };
  await sendAll(() => connect(url, other), attempt, run.watcherId);
  await holdAll(() => dial(url, other.token), other, attempt);
  await isUnharmed(stream, attempt, watching);
});

test.each(where)(
  "a worker of the same token, %s, changes nothing of a worker's attempt by its stream",
  async (at) => {
    const { clients, url } = replicas.here;
    const token = await fleetToken(clients);
    const worker = workerIdentity(token);
    const stream = await connectWorker(url, worker);
    const { run, attempt } = await beginOn(stream, { ...worker, deviceId: "" });
    const watching = watchRun(clients, attempt);
    await watching.begun();
    const other = workerIdentity(token);
    const strange = replicas[at].url;
    await sendAll(() => connectWorker(strange, other), attempt, run.watcherId);
    await holdAll(() => dial(strange, other.token), other, attempt);
    await isUnharmed(stream, attempt, watching);
  },
);

test("an unary report of another device, or with a person's token, changes nothing of a device's attempt", async () => {
  const { clients, url, token } = replicas.here;
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const { run, attempt } = await beginOn(stream, device);
  const watching = watchRun(clients, attempt);
  await watching.begun();
  const other = await enrolDevice(clients);
  const worker = await fleetToken(clients);
  for (const secret of [other.token, token, worker.secret]) {
    const strange = createClients({ url, token: secret });
    for (const message of messagesAbout(attempt, run.watcherId)) {
      if (message.case !== "complete") continue;
      const answer = await strange.device.completeRun({ completion: message.value }).catch(() => undefined);
      expect(answer?.verdict).not.toBe(CompletionVerdict.STORED);
    }
    strange.close();
  }
  await isUnharmed(stream, attempt, watching);
});
