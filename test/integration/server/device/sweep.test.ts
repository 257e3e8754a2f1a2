/** The sweep repairs lost notifications; and names that a device writes in another format. */
import { status as grpcStatus } from "@grpc/grpc-js";
import { sql } from "kysely";
import { expect, test } from "vitest";
import { CompletionVerdict, DrainReason, HeldAttemptState, HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { startTestReplica, useReplica } from "../../../support/server.ts";
import { getRun, startWork, takeOn, untilStatus } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const quickSweep = useReplica(database, { PINION_SWEEP_INTERVAL_MS: "200" });

test("a token that is revoked without a word ends its stream at the next sweep", async () => {
  const { clients, url } = quickSweep();
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  await sql`update token set revoked_at = now() where device_id = ${device.deviceId}`.execute(database.db);
  expect((await stream.next("drain")).reason).toBe(DrainReason.REVOKED);
  expect((await stream.ended).code).toBe(grpcStatus.UNAUTHENTICATED);
});

test("a claim whose answer was lost is given back at the next sweep, and pushed", async () => {
  const { clients, url } = quickSweep();
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const busy = await startWork(clients, device);
  const first = await takeOn(stream);
  const waiting = await startWork(clients, device);
  // The state left by a claim for this session whose answer was lost.
  await sql`
    update run set status = 'claimed', attempt = 1, attempt_token = gen_random_uuid(),
      claimed_epoch = ${stream.welcome.sessionEpoch.toString()}::bigint,
      claimed_session = (select session_id from presence where device_id = ${device.deviceId}), claimed_at = now() - interval '1 minute'
    where id = ${waiting.id}`.execute(database.db);
  await untilStatus(clients, { workId: waiting.id }, RunStatus.PENDING);
  await stream.complete(first);
  const second = await stream.next("assignment");
  expect(second).toMatchObject({ workId: waiting.id, attempt: 1 });
  expect(first.workId).toBe(busy.id);
});

test("a cancellation that nobody heard of reaches the devices at the next sweep", async () => {
  const { clients, url } = quickSweep();
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const run = await startWork(clients, device);
  const { workId, attemptToken } = await takeOn(stream);
  await sql`update run set cancel_requested_at = now(), cancel_reason = 'enough' where id = ${run.id}`.execute(
    database.db,
  );
  expect(await stream.next("cancel")).toMatchObject({ workId, attemptToken, reason: "enough" });
});

test("a device may write its ids in capitals", async () => {
  const { clients, url } = await startTestReplica(database.url);
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  await startWork(clients, device);
  const assignment = await stream.next("assignment");
  const name = {
    workId: assignment.workId.toUpperCase(),
    attemptToken: assignment.attemptToken.toUpperCase(),
  };
  stream.send({ case: "accept", value: name });
  await stream.beat([name]);
  await untilStatus(clients, assignment, RunStatus.RUNNING);
  expect(stream.waiting("cancel")).toEqual([]);
  stream.cancel();
  const back = await connect(url, device, { held: [{ ...name, state: HeldAttemptState.RUNNING }] });
  expect(back.welcome.verdicts[0]!.verdict).toBe(HeldVerdict.CONTINUE);
  expect((await back.complete(name)).verdict).toBe(CompletionVerdict.STORED);
  expect((await getRun(clients, assignment)).status).toBe(RunStatus.COMPLETED);
});
