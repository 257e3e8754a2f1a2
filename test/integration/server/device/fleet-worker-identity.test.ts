import { status as grpcStatus } from "@grpc/grpc-js";
import { sql } from "kysely";
import { expect, test, vi } from "vitest";
import { DrainReason, Os } from "#gen/pinion/v1/device_pb.js";
import { Liveness } from "#gen/pinion/v1/fleet_pb.js";
import { TokenKind } from "#gen/pinion/v1/token_pb.js";
import { retainOnce } from "../../../../src/scheduler/retention.ts";
import { createLogger } from "../../../../src/telemetry/log.ts";
import { useDatabase } from "../../../support/database.ts";
import { dial, enrolDevice } from "../../../support/device.ts";
import { inNewOrg, startTestReplica } from "../../../support/server.ts";
import { startWork, takeOn, useReplicas } from "../../../support/work.ts";
import { connectWorker, fleetToken, workerIdentity } from "../../../support/worker.ts";

const database = useDatabase({ per: "file" });
const replicas = useReplicas(database, "here");

const unpinned = { deviceId: "" };
const nobody = { deviceId: "", installId: "", token: "", label: "" };

test("a revoked token ends the streams of all its workers and no others, and lets none back in", async () => {
  const { clients, url } = await inNewOrg(replicas.here);
  const token = await fleetToken(clients);
  const worker = workerIdentity(token);
  const streams = [await connectWorker(url, worker), await connectWorker(url, workerIdentity(token))];
  const other = await connectWorker(url, workerIdentity(await fleetToken(clients)));
  await clients.tokens.revokeToken({ tokenId: token.id });
  for (const stream of streams) {
    expect((await stream.next("drain")).reason).toBe(DrainReason.REVOKED);
    expect((await stream.ended).code).toBe(grpcStatus.UNAUTHENTICATED);
  }
  const back = dial(url, worker.token);
  back.hello(worker);
  expect((await back.ended).code).toBe(grpcStatus.UNAUTHENTICATED);
  await other.beat();
});

test("who a worker is: its installation under its token", async () => {
  const { clients, url } = await inNewOrg(replicas.here);
  const token = await fleetToken(clients);
  const worker = workerIdentity(token);
  const stream = await connectWorker(url, worker);
  const sibling = workerIdentity(token);
  await connectWorker(url, sibling);
  expect(sibling.deviceId).not.toBe(worker.deviceId);

  const refusedAs = async (identity: typeof worker, hello = {}) => {
    const dialled = dial(url, identity.token);
    dialled.hello(identity, hello);
    return dialled.ended;
  };
  // A person's device, whose installation id the message claims.
  const device = await enrolDevice(clients);
  expect(await refusedAs({ ...worker, installId: device.installId })).toMatchObject({
    code: grpcStatus.PERMISSION_DENIED,
    details: expect.stringContaining("enrolled as a device"),
  });
  // A connected worker of another token.
  const stranger = await fleetToken(clients);
  expect(await refusedAs({ ...worker, token: stranger.secret })).toMatchObject({
    code: grpcStatus.PERMISSION_DENIED,
    details: expect.stringContaining("another token"),
  });
  expect(await refusedAs(workerIdentity(token), { os: Os.BROWSER })).toMatchObject({
    code: grpcStatus.PERMISSION_DENIED,
  });
  // The other direction: a worker's installation cannot be enrolled as a device.
  const { joinCode } = await clients.fleet.createJoinCode({});
  await expect(
    clients.device.enroll({ joinCode, installId: worker.installId, label: "x", os: Os.LINUX }),
  ).rejects.toThrow(/fleet worker/);
  await stream.beat();

  // A worker with the successor of the token takes over at once, and the old stream ends.
  const { secret } = await clients.tokens.rotateToken({ tokenId: token.id });
  const successor = { ...worker, token: secret };
  const taken = await connectWorker(url, successor);
  expect(successor.deviceId).toBe(worker.deviceId);
  expect((await stream.next("drain")).reason).toBe(DrainReason.REPLACED);
  taken.cancel();
  // After an absence of one TTL, any token of the fleet may take the installation.
  await vi.waitFor(async () => {
    const { device: row } = await clients.fleet.getDevice({ deviceId: worker.deviceId });
    expect(row!.disconnectedAt).toBeDefined();
  });
  await sql`update presence set last_beat_at = now() - interval '1 minute', connected_at = now() - interval '1 minute',
    disconnected_at = now() - interval '1 minute' where device_id = ${worker.deviceId}`.execute(database.db);
  const inherited = { ...worker, token: stranger.secret };
  await connectWorker(url, inherited);
  expect(inherited.deviceId).toBe(worker.deviceId);
});

test("neither a person's token with fleet:run nor a service's without it runs the fleet", async () => {
  const { clients, url } = await inNewOrg(replicas.here);
  const tokens = await Promise.all([
    clients.tokens.createToken({ label: "person", kind: TokenKind.PAT, scopes: ["fleet:run"] }),
    clients.tokens.createToken({ label: "service", kind: TokenKind.SVC, scopes: ["read", "write"] }),
  ]);
  for (const { secret } of tokens) {
    const stream = dial(url, secret);
    stream.hello(workerIdentity({ id: "", secret }));
    expect(await stream.ended).toMatchObject({
      code: grpcStatus.PERMISSION_DENIED,
      details: expect.stringContaining('a service token with the scope "fleet:run"'),
    });
  }
});

test("workers are listed apart, disconnected and deleted; nothing is pinned to one, and none brings the default watcher", async () => {
  const { clients, url } = await inNewOrg(
    await startTestReplica(database.url, { PINION_RETRY_BACKOFF_MS: "10" }),
  );
  const worker = workerIdentity(await fleetToken(clients), "wrk");
  let stream = await connectWorker(url, worker);
  expect((await clients.watchers.listWatchers({})).watchers).toEqual([]);
  const device = await enrolDevice(clients);
  expect((await clients.watchers.listWatchers({})).watchers).toHaveLength(1);
  const labels = async (filter: { isWorker?: boolean }) =>
    (await clients.fleet.listDevices(filter)).devices.map(({ label }) => label).sort();
  expect(await labels({})).toEqual([device.label, "wrk"].sort());
  expect(await labels({ isWorker: true })).toEqual(["wrk"]);
  expect(await labels({ isWorker: false })).toEqual([device.label]);
  const { device: row } = await clients.fleet.getDevice({ deviceId: worker.deviceId });
  expect(row).toMatchObject({
    isWorker: true,
    ownerId: "",
    liveness: Liveness.ONLINE,
    os: Os.LINUX,
  });

  const spec = { name: "Pinned", prompt: "p", deviceId: worker.deviceId };
  await expect(clients.watchers.createWatcher({ spec })).rejects.toThrow(/"wrk" is a fleet worker/);

  await clients.fleet.disconnectDevice({ deviceId: worker.deviceId });
  expect((await stream.next("drain")).reason).toBe(DrainReason.OPERATOR);
  stream.cancel();
  stream = await connectWorker(url, worker);
  await startWork(clients, nobody, { ...unpinned, maxAttempts: 2 });
  const assignment = await takeOn(stream);
  const other = await connectWorker(url, workerIdentity(await fleetToken(clients)));
  const deleted = await clients.fleet.deleteDevice({ deviceId: worker.deviceId });
  expect(deleted).toMatchObject({ watchersUnpinned: 0, runsCancelled: 0 });
  expect((await stream.next("drain")).reason).toBe(DrainReason.REVOKED);
  // The lost worker's run goes to another worker.
  expect(await takeOn(other)).toMatchObject({ workId: assignment.workId });
});

test("a worker that was away for a day and holds nothing is taken off the list; one that holds a run stays", async () => {
  const { clients, url, orgId } = await inNewOrg(replicas.here);
  const token = await fleetToken(clients);
  const idle = workerIdentity(token);
  const busy = workerIdentity(token);
  const idleStream = await connectWorker(url, idle);
  idleStream.cancel();
  const busyStream = await connectWorker(url, busy);
  await startWork(clients, nobody, unpinned);
  await takeOn(busyStream);
  const device = await enrolDevice(clients);
  await sql`update device set created_at = now() - interval '3 days' where org_id = ${orgId}`.execute(
    database.db,
  );
  await sql`update presence set last_beat_at = now() - interval '25 hours', connected_at = now() - interval '25 hours',
    disconnected_at = now() - interval '25 hours' where org_id = ${orgId}`.execute(database.db);
  await retainOnce(database.db, {
    ...{ days: 30, conversationDays: 365 },
    log: createLogger({ name: "test", level: "silent" }),
  });
  const { devices } = await clients.fleet.listDevices({});
  expect(devices.map(({ id }) => id).sort()).toEqual([busy.deviceId, device.deviceId].sort());
});
