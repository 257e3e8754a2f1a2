import { timestampDate } from "@bufbuild/protobuf/wkt";
import { Code } from "@connectrpc/connect";
import { afterEach, beforeEach, expect, test } from "vitest";
import { Os } from "#gen/pinion/v1/device_pb.js";
import { Liveness } from "#gen/pinion/v1/fleet_pb.js";
import { WatcherStatus } from "#gen/pinion/v1/watcher_pb.js";
import * as presence from "../../../../src/store/work/service/presence.ts";
import { enroll } from "../../../../src/usecases/enrolments.ts";
import { useDatabase } from "../../../support/database.ts";
import { surroundings } from "../../../support/surroundings.ts";
import { addDevice, addTenant, type Tenant } from "../../../support/tenants.ts";
import { type Api, startApi } from "../api.ts";

const database = useDatabase();
let api: Api;
let tenant: Tenant;
let mine: ReturnType<Api["as"]>;

beforeEach(async () => {
  tenant = await addTenant(database.db, "acme");
  api = await startApi(database.db);
  mine = api.as(tenant.secret);
});
afterEach(() => api.stop());

test("a join code is good for a quarter of an hour, belongs to who asked for it, and is in no event", async () => {
  const { joinCode, expiresAt } = await mine.fleet.createJoinCode({});
  const minutes = (timestampDate(expiresAt!).getTime() - Date.now()) / 60_000;
  expect(Math.round(minutes)).toBe(15);
  const facts = {
    installId: "install-0001",
    os: "macos",
    label: "laptop",
    appVersion: "1.2.3",
  } as const;
  const { deviceId } = await enroll(database.db, { joinCode, ...facts }, surroundings);
  const { device } = await mine.fleet.getDevice({ deviceId });
  expect(device).toMatchObject({
    label: "laptop",
    os: Os.MACOS,
    installId: "install-0001",
    appVersion: "1.2.3",
    ownerId: tenant.userId,
    liveness: Liveness.NEVER,
    sessionEpoch: 0n,
  });
  const { events } = await mine.events.listEvents({});
  expect(events.map((event) => event.kind)).toEqual([
    "watcher.created",
    "device.enrolled",
    "device.join_code_created",
  ]);
  expect(
    JSON.stringify(events, (_key, value) => (typeof value === "bigint" ? String(value) : value)),
  ).not.toContain(joinCode);
});

test("a device gets another label, and nothing else can be changed", async () => {
  const { deviceId } = await addDevice(database.db, tenant);
  const { device } = await mine.fleet.updateDevice({
    deviceId,
    label: "attic",
    updateMask: { paths: ["label"] },
  });
  expect(device!.label).toBe("attic");
  await expect(
    mine.fleet.updateDevice({ deviceId, label: "attic", updateMask: { paths: ["os"] } }),
  ).rejects.toMatchObject({ code: Code.InvalidArgument });
  await expect(mine.fleet.updateDevice({ deviceId, updateMask: { paths: ["label"] } })).rejects.toMatchObject(
    {
      code: Code.InvalidArgument,
    },
  );
});

test("devices are listed by label, also when labels repeat", async () => {
  for (const label of ["b", "a", "b", "c", "b"]) await addDevice(database.db, tenant, { label });
  const seen: string[] = [];
  let pageToken = "";
  do {
    const answer = await mine.fleet.listDevices({ pageSize: 2, pageToken });
    seen.push(...answer.devices.map((device) => `${device.label} ${device.id}`));
    pageToken = answer.nextPageToken;
  } while (pageToken !== "");
  expect(new Set(seen).size).toBe(5);
  expect(seen.map((line) => line[0])).toEqual(["a", "b", "b", "b", "c"]);
});

test("a device that holds no stream cannot be disconnected; one that does is drained", async () => {
  const { deviceId } = await addDevice(database.db, tenant);
  await expect(mine.fleet.disconnectDevice({ deviceId })).rejects.toMatchObject({
    code: Code.FailedPrecondition,
  });
  const { epoch } = await presence.open(database.db, {
    orgId: "acme",
    deviceId,
    replicaId: "r1",
    ttlMs: 60_000,
  });
  await mine.fleet.disconnectDevice({ deviceId });
  expect(api.rung.disconnected).toMatchObject([{ deviceId, replicaId: "r1", epoch, reason: "operator" }]);
});

test("a deleted device takes its runs with it, orphans its watchers, and its token works no more", async () => {
  const { deviceId, secret } = await addDevice(database.db, tenant);
  await presence.open(database.db, { orgId: "acme", deviceId, replicaId: "r1", ttlMs: 60_000 });
  await mine.watchers.triggerWatcher({ watcherId: "daily-checkin" });
  expect((await mine.fleet.getDevice({ deviceId })).device).toMatchObject({
    liveness: Liveness.ONLINE,
    pendingRuns: 1,
    activeRuns: 0,
  });
  await api.guard.authenticate(`Bearer ${secret}`);

  expect(await mine.fleet.deleteDevice({ deviceId })).toMatchObject({
    watchersUnpinned: 1,
    runsCancelled: 1,
  });
  expect((await mine.watchers.getWatcher({ watcherId: "daily-checkin" })).watcher).toMatchObject({
    status: WatcherStatus.NO_EXECUTOR,
    activeRunId: "",
    spec: { deviceId: "" },
  });
  await expect(api.guard.authenticate(`Bearer ${secret}`)).rejects.toMatchObject({
    reason: "unauthenticated",
  });
  expect(api.rung.revoked).toHaveLength(1);
  expect(api.rung.disconnected).toMatchObject([{ deviceId, reason: "revoked" }]);
});
