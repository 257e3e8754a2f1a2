/**
 * The database fails over between the arrival of a completion and its answer: the answer names the
 * database that is gone, so the device offers the result to the new one. A real promotion.
 */
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import pg from "pg";
import { expect, onTestFinished, test, vi } from "vitest";
import { CompletionVerdict } from "#gen/pinion/v1/device_pb.js";
import { type Cluster, openCluster } from "../../../chaos/rig/cluster.ts";
import { connect, enrolDevice } from "../../../support/device.ts";
import { startFaultProxy } from "../../../support/fault-proxy.ts";
import { startTestReplica } from "../../../support/server.ts";
import { startWork, takeOn } from "../../../support/work.ts";

/** The stream lives longer than a loaded machine needs for the failover. */
const patient = { PINION_HEARTBEAT_TTL_MS: "60000", PINION_SHUTDOWN_MS: "30000" };

/** A database with a standby, at an address that leads to whichever is the primary. */
async function openDatabase() {
  const directory = await mkdtemp(join(tmpdir(), "pinion-failover-"));
  await chmod(directory, 0o711);
  onTestFinished(() => rm(directory, { recursive: true, force: true }));
  const cluster = await openCluster(join(directory, "postgres"), { hasStandby: true });
  onTestFinished(() => cluster.close());
  const front = await startFaultProxy(() => cluster.primary());
  onTestFinished(() => front.close());
  const url = new URL(cluster.url);
  url.port = String(front.port);
  return { cluster, front, url: url.href };
}

/** Locks the run on the present primary, by a way of its own. */
async function holdRun(cluster: Cluster, runId: string): Promise<pg.Client> {
  const holder = new pg.Client({ connectionString: cluster.url });
  holder.on("error", () => {});
  await holder.connect();
  onTestFinished(() => holder.end().catch(() => {}));
  await holder.query("begin");
  await holder.query("select from run where id = $1 for update", [runId]);
  return holder;
}

async function untilWaiting(cluster: Cluster): Promise<void> {
  const waits = "select count(*)::int as count from pg_stat_activity where wait_event_type = 'Lock'";
  await vi.waitFor(
    async () => expect((await cluster.query<{ count: number }>(waits))[0]!.count).toBeGreaterThan(0),
    { timeout: 15_000 },
  );
}

test("an acknowledgement of a completion that met a failover names the former database", {
  timeout: 120_000,
}, async () => {
  const { cluster, front, url } = await openDatabase();
  const { clients, url: address } = await startTestReplica(url, patient);
  const [device, witness] = [await enrolDevice(clients), await enrolDevice(clients)];
  const stream = await connect(address, device);
  const { timeline } = stream.welcome.incarnation!;
  const run = await startWork(clients, device);
  const assignment = await takeOn(stream);
  await holdRun(cluster, run.id);
  const answer = stream.complete(assignment, "the answer");
  await untilWaiting(cluster);
  expect(await cluster.standbyIsCurrent()).toBe(true);
  front.set({ onConnect: "reset" });
  await cluster.failOver();
  // The report waits again, until the replica has seen which database it is.
  const holder = await holdRun(cluster, run.id);
  front.heal();
  await untilWaiting(cluster);
  await vi.waitFor(
    async () => expect((await connect(address, witness)).welcome.incarnation!.timeline).toBe(timeline + 1),
    { timeout: 15_000, interval: 200 },
  );
  await holder.query("rollback");
  expect(await answer).toMatchObject({ verdict: CompletionVerdict.STORED, incarnation: { timeline } });
  const again = await connect(address, device);
  expect(await again.complete(assignment, "the answer")).toMatchObject({
    ...{ verdict: CompletionVerdict.ALREADY_STORED, incarnation: { timeline: timeline + 1 } },
  });
});
