/**
 * A running run whose device is online and does not list it: lost within two heartbeats, and not
 * after the two hours of an attempt that never beat.
 */
import { sql } from "kysely";
import { expect, onTestFinished, test } from "vitest";
import { HeldVerdict } from "#gen/pinion/v1/device_pb.js";
import { RunStatus } from "#gen/pinion/v1/run_pb.js";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../../../support/device.ts";
import { startTestReplica } from "../../../support/server.ts";
import { getRun, heldOf, startWork, takeOn, untilStatus } from "../../../support/work.ts";

const database = useDatabase();
const ttlMs = 3_000;
const quick = { PINION_HEARTBEAT_TTL_MS: String(ttlMs), PINION_REAP_INTERVAL_MS: "200" };
/** Far below the two hours, and above the TTL in which a new replica takes nothing away. */
const soonMs = 15_000;

/** From now on the device beats, and lists nothing. */
function beatEmpty(stream: DeviceStream): void {
  const beats = setInterval(() => stream.beat([]).catch(() => {}), ttlMs / 6);
  onTestFinished(() => clearInterval(beats));
}

async function begin() {
  const { clients, url } = await startTestReplica(database.url, quick);
  const device = await enrolDevice(clients);
  const stream = await connect(url, device);
  const { id: runId } = await startWork(clients, device);
  const assignment = await takeOn(stream);
  await untilStatus(clients, assignment, RunStatus.RUNNING);
  return { clients, device, stream, assignment, runId };
}

test("after a failover that lost a run's end, the run is lost within two heartbeats", async () => {
  const { clients, stream, assignment, runId } = await begin();
  await sql`create table replicated as select * from run where id = ${runId}`.execute(database.db);
  await stream.complete(assignment);
  // The standby had the run's begin and not its end; the device's kept result is gone, too.
  await sql`delete from run_finished where id = ${runId}`.execute(database.db);
  await sql`insert into run select * from replicated`.execute(database.db);
  expect((await getRun(clients, assignment)).status).toBe(RunStatus.RUNNING);
  beatEmpty(stream);
  const lost = await untilStatus(clients, assignment, RunStatus.TIMEOUT, soonMs);
  expect(lost.reason).toContain("did not list it");
});

test("an attempt that another replica took over, and its device lists no more, is lost within two heartbeats", async () => {
  // Before the device is silent: a start may take longer than the TTL.
  const other = await startTestReplica(database.url, quick);
  const { clients, device, stream, assignment } = await begin();
  stream.cancel();
  const back = await connect(other.url, device, { held: [heldOf(assignment)] });
  expect(back.welcome.verdicts).toMatchObject([{ verdict: HeldVerdict.CONTINUE }]);
  await back.beat([]);
  expect((await getRun(clients, assignment)).status).toBe(RunStatus.RUNNING);
  await back.beat([]);
  const lost = await untilStatus(clients, assignment, RunStatus.TIMEOUT, soonMs);
  expect(lost.reason).toContain("2 successive heartbeats did not list it");
});

test("an attempt that is listed goes on after both, however old its claim", async () => {
  const { clients, stream, assignment, runId } = await begin();
  await sql`update run set claimed_at = now() - interval '3 hours', started_at = now() - interval '30 minutes'
    where id = ${runId}`.execute(database.db);
  for (let beats = 0; beats < 8; beats++) {
    await stream.beat([assignment]);
    await new Promise((resolve) => setTimeout(resolve, ttlMs / 6));
  }
  expect((await getRun(clients, assignment)).status).toBe(RunStatus.RUNNING);
  await stream.complete(assignment);
});
