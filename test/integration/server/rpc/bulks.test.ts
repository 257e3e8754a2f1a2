/**
 * Cancels, retries and replays of many runs: counted first, each run once, even if the replica dies
 * in between.
 */
import { createClients } from "@pinion/client";
import { sql } from "kysely";
import { beforeAll, expect, test, vi } from "vitest";
import { Outcome } from "#gen/pinion/v1/device_pb.js";
import { MemberRole } from "#gen/pinion/v1/org_pb.js";
import { BulkKind, BulkState, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { bulkOnce } from "../../../../src/scheduler/starts/bulks.ts";
import { useDatabase } from "../../../support/database.ts";
import { connect, type DeviceStream, enrolDevice } from "../../../support/device.ts";
import { getRun, startWork, takeOn, untilStatus, useReplicas } from "../../../support/work.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "one", "two");
type Clients = ReturnType<typeof createClients>;
let owner: Clients;

beforeAll(() => {
  owner = replicas.one.clients;
});

const { CANCEL, RETRY, REPLAY } = BulkKind;

async function untilOver(operationId: string) {
  return vi.waitFor(
    async () => {
      const { operation } = await owner.runs.getBulkOperation({ operationId });
      expect(operation!.state).toBe(BulkState.FINISHED);
      return operation!;
    },
    { timeout: 20_000, interval: 30 },
  );
}

/** `count` runs, each waiting for its own disconnected device. */
async function waiting(count: number) {
  const device = await enrolDevice(owner);
  const runs = [];
  for (let index = 0; index < count; index++) runs.push(await startWork(owner, device));
  return { device, runs };
}

async function failOnce(stream: DeviceStream, outcome = Outcome.FAILED) {
  const attempt = await takeOn(stream);
  await stream.complete(attempt, "no", outcome, "it broke");
}

test("runs are counted first, and then cancelled; others stay as they are", async () => {
  const { device, runs } = await waiting(12);
  const { runs: others } = await waiting(1);
  const filter = { deviceId: device.deviceId };
  const preview = await owner.runs.startBulkOperation({ kind: CANCEL, filter, dryRun: true });
  expect(preview).toMatchObject({ matched: 12, notAllowed: 0 });
  expect(preview.counts[0]).toMatchObject({ status: RunStatus.PENDING, count: 12 });
  expect(preview.operation).toBeUndefined();
  expect((await getRun(owner, { workId: runs[0]!.id })).status).toBe(RunStatus.PENDING);
  const { operation } = await owner.runs.startBulkOperation({ kind: CANCEL, filter, reason: "too many" });
  expect(await untilOver(operation!.id)).toMatchObject({ matched: 12, done: 12, failed: 0, left: 0 });
  expect(await getRun(owner, { workId: runs[11]!.id })).toMatchObject({
    ...{ status: RunStatus.CANCELLED, reason: "too many" },
  });
  expect((await getRun(owner, { workId: others[0]!.id })).status).toBe(RunStatus.PENDING);
  const { events } = await owner.events.listEvents({ kinds: ["bulk"] });
  expect(events.map(({ kind }) => kind).slice(0, 2)).toEqual(["bulk.finished", "bulk.started"]);
});

test("a repeat of a request answers with the first operation", async () => {
  const { device } = await waiting(1);
  const request = { kind: CANCEL, filter: { deviceId: device.deviceId }, requestId: "once" };
  const first = await owner.runs.startBulkOperation(request);
  const again = await owner.runs.startBulkOperation(request);
  expect(again.operation!.id).toBe(first.operation!.id);
});

test("runs of a watcher are retried one after the other, each once", async () => {
  const device = await enrolDevice(owner);
  const stream = await connect(replicas.two.url, device);
  const first = await startWork(owner, device);
  await failOnce(stream);
  await untilStatus(owner, { workId: first.id }, RunStatus.FAILED);
  await owner.watchers.triggerWatcher({ watcherId: first.watcherId });
  await failOnce(stream);
  await vi.waitFor(async () => {
    const { runs } = await owner.runs.listRuns({ watcherId: first.watcherId, statuses: [RunStatus.FAILED] });
    expect(runs).toHaveLength(2);
  });
  const filter = { watcherId: first.watcherId };
  const { operation } = await owner.runs.startBulkOperation({ kind: RETRY, filter });
  const retried = [await takeOn(stream)];
  await stream.complete(retried[0]!);
  retried.push(await takeOn(stream));
  await stream.complete(retried[1]!);
  expect(await untilOver(operation!.id)).toMatchObject({ matched: 2, done: 2 });
  const runs = await Promise.all(retried.map(({ workId }) => getRun(owner, { workId })));
  const { runs: failed } = await owner.runs.listRuns({ ...filter, statuses: [RunStatus.FAILED] });
  expect(runs.map(({ retryOf }) => retryOf).sort()).toEqual(failed.map(({ id }) => id).sort());
});

test("completed runs are replayed, and not retried", async () => {
  const device = await enrolDevice(owner);
  const stream = await connect(replicas.one.url, device);
  const run = await startWork(owner, device);
  await stream.complete(await takeOn(stream));
  const filter = { watcherId: run.watcherId };
  const none = await owner.runs.startBulkOperation({ kind: RETRY, filter, dryRun: true });
  expect(none.matched).toBe(0);
  const wrong = owner.runs.startBulkOperation({ kind: RETRY, filter: { ...filter, statuses: [4] } });
  await expect(wrong).rejects.toThrow(/a run that is completed cannot be retried/);
  const { operation } = await owner.runs.startBulkOperation({ kind: REPLAY, filter });
  expect((await takeOn(stream)).workId).not.toBe(run.id);
  await untilOver(operation!.id);
});

test("labels and times narrow what is meant", async () => {
  const { device, runs } = await waiting(2);
  await owner.fleet.labelDevice({ deviceId: device.deviceId, add: ["bulky"] });
  await sql`update run set due_at = now() - interval '1 day' where id = ${runs[0]!.id}`.execute(database.db);
  const count = async (filter: object) =>
    (await owner.runs.startBulkOperation({ kind: CANCEL, filter, dryRun: true })).matched;
  const hourAgo = { seconds: BigInt(Math.floor(Date.now() / 1000) - 3600) };
  expect(await count({ labels: ["bulky"] })).toBe(2);
  expect(await count({ labels: ["bulky"], since: hourAgo })).toBe(1);
  expect(await count({ labels: ["bulky"], until: hourAgo })).toBe(1);
  expect(await count({ labels: ["bulky", "other"] })).toBe(0);
});

test("runs on devices that are not theirs are left out, and counted as such", async () => {
  const { device, runs } = await waiting(2);
  const { secret } = await owner.orgs.addMember({
    ...{ email: "bulky@example.org", role: MemberRole.MEMBER, tokenScopes: ["read", "write"] },
  });
  const bea = createClients({ url: replicas.one.url, token: secret });
  const asked = { kind: CANCEL, filter: { deviceId: device.deviceId } };
  const preview = await bea.runs.startBulkOperation({ ...asked, dryRun: true });
  expect(preview).toMatchObject({ matched: 0, notAllowed: 2 });
  const { operation } = await bea.runs.startBulkOperation(asked);
  expect(await untilOver(operation!.id)).toMatchObject({ matched: 0, done: 0 });
  expect((await getRun(owner, { workId: runs[0]!.id })).status).toBe(RunStatus.PENDING);
});

test("however many work on one operation at once, nothing is done twice", async () => {
  const { device, runs } = await waiting(12);
  const { operation } = await owner.runs.startBulkOperation({
    ...{ kind: CANCEL, filter: { deviceId: device.deviceId } },
  });
  const settled: string[] = [];
  const doorbell = {
    settled: (some: readonly { runId: string }[]) => void settled.push(...some.map(({ runId }) => runId)),
    ...{ recorded() {}, kept() {}, cancelling() {}, turnsEnded() {}, turnsWithdrawn() {} },
  };
  const policy = { retryBackoffMs: 1, backoffAfter: 3, pauseAfter: 10, watcherBackoffMs: 1 };
  const log = { info() {}, warn() {}, error() {} } as never;
  // Beside the replicas, as many as like at once.
  await Promise.all(
    Array.from({ length: 3 }, () => bulkOnce(database.db, { policy, doorbell, log } as never)),
  );
  expect(await untilOver(operation!.id)).toMatchObject({ matched: 12, done: 12, passedOver: 0 });
  const { rows } = await sql<{ count: number }>`
    select count(*)::int as count from event where kind = 'run.cancelled' and run_id = any(${runs.map(({ id }) => id)}::uuid[])
  `.execute(database.db);
  expect(rows[0]!.count).toBe(12);
  expect(new Set(settled).size).toBe(settled.length);
});

test("an operation that is stopped leaves what is left as it is", async () => {
  const device = await enrolDevice(owner);
  const stream = await connect(replicas.one.url, device);
  const run = await startWork(owner, device);
  await failOnce(stream);
  await untilStatus(owner, { workId: run.id }, RunStatus.FAILED);
  // The retry waits for the end of this run.
  await owner.watchers.triggerWatcher({ watcherId: run.watcherId });
  const active = await takeOn(stream);
  const filter = { watcherId: run.watcherId };
  const { operation } = await owner.runs.startBulkOperation({ kind: RETRY, filter });
  const stopped = await owner.runs.stopBulkOperation({ operationId: operation!.id });
  expect(stopped.operation).toMatchObject({ state: BulkState.STOPPED, matched: 1, done: 0, left: 1 });
  await stream.complete(active);
  const { runs } = await owner.runs.listRuns(filter);
  expect(runs.filter(({ retryOf }) => retryOf !== "")).toEqual([]);
});
